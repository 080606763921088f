//! `lambda-policy health`, as container engines ask it.

use std::{process::Output, time::Instant};

use crate::{
    binary::{Process, run},
    support::{Directory, config, eventually, lambda},
};

/// The code of the exit, and what was said.
fn answer(output: Output) -> (i32, String) {
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(said).unwrap().trim().to_owned())
}

async fn health(arguments: &[&str]) -> (i32, String) {
    let arguments: Vec<_> = ["health"].iter().chain(arguments).map(|argument| (*argument).to_owned()).collect();
    let asked = tokio::task::spawn_blocking(move || run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()));
    answer(asked.await.unwrap())
}

#[tokio::test]
async fn a_service_is_healthy_while_it_wants_calls() {
    let lambda = lambda().await;
    let directory = Directory::new();
    let text = config(&lambda, "", "  echo: {function: echo}\n").replace("drain_delay: 0s", "drain_delay: 5s");
    let process = Process::serve(&directory.write("f.yaml", &text), &[]);
    let grpc = eventually("the service", async || process.address("grpc")).await;
    let admin = process.address("admin").unwrap();
    eventually("readiness", async || (health(&["--address", &admin]).await.0 == 0).then_some(())).await;
    assert_eq!(health(&["--address", &admin]).await, (0, "ready".to_owned()));
    assert_eq!(health(&["--grpc", &grpc]).await, (0, "ready".to_owned()));
    // Where the configuration says that it listens on every address.
    let port = admin.rsplit(':').next().unwrap();
    let other = directory.write("other.yaml", &format!("admin: {{listen: '0.0.0.0:{port}'}}\n"));
    assert_eq!(health(&["--config", other.to_str().unwrap()]).await, (0, "ready".to_owned()));

    process.signal("TERM");
    let (code, said) =
        eventually("the way out", async || Some(health(&["--address", &admin]).await).filter(|(code, _)| *code != 0))
            .await;
    assert_eq!(code, 1);
    assert!(said.starts_with(&format!("{admin}: not ready: ")), "{said}");
    let (code, said) = health(&["--grpc", &grpc]).await;
    assert_eq!((code, &*said), (1, &*format!("--grpc: {grpc}: not ready: NOT_SERVING")));
}

#[tokio::test]
async fn what_is_no_service_is_not_healthy_and_the_reason_is_told() {
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let silent = silent.local_addr().unwrap().to_string();
    let lambda = lambda().await;
    let other = lambda.url().trim_start_matches("http://").to_owned();
    let nobody = {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.local_addr().unwrap().to_string()
    };
    for (what, arguments, expected) in [
        ("nobody listens", ["--address", &nobody], "no connection"),
        ("nobody answers", ["--address", &silent], "no answer within 1 s"),
        ("nobody answers gRPC", ["--grpc", &silent], "no answer within 1 s"),
        ("another's port", ["--address", &other], "is this the admin port?"),
        ("no such file", ["--config", "/no/such/file.yaml"], "/no/such/file.yaml: cannot be read"),
    ] {
        let begun = Instant::now();
        let (code, said) = health(&arguments).await;
        assert_eq!(code, 1, "{what}: {said}");
        assert!(said.contains(expected), "{what}: {said}");
        assert!(begun.elapsed().as_secs() < 5, "{what}");
    }
}
