//! The Unix socket: for gateways beside the service, who are known by their user.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixListener},
};

use lambda_policy::{app::Listener, config::Listen};

use crate::{
    binary::{Process, run},
    support::{Directory, config, eventually, execute, lambda, request},
};

fn text(lambda: &lambda_policy::local::Lambda, callers: &str, policies: &str) -> String {
    format!(
        "{callers}{}",
        config(lambda, "", policies).replace("127.0.0.1:0', drain", "unix:s.sock', socket_mode: '0600', drain")
    )
}

#[tokio::test]
async fn calls_come_through_a_socket_whose_file_says_who_may_connect() {
    let lambda = lambda().await;
    let directory = Directory::new();
    let user = {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(&directory.0).unwrap().uid()
    };
    let callers = format!("callers: {{beside: {{users: [{user}]}}, elsewhere: {{users: ['4000000000']}}}}\n");
    let policies = "  echo: {function: echo, callers: beside}\n  not: {function: echo, callers: elsewhere}\n";
    let mut process = Process::serve(&directory.write("f.yaml", &text(&lambda, &callers, policies)), &[]);
    eventually("the service", async || process.address("grpc")).await;
    let socket = directory.0.join("s.sock");
    assert_eq!(process.address("grpc").unwrap(), format!("unix:{}", socket.display()));
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);

    let endpoint = tonic::transport::Endpoint::from_shared(format!("unix:{}", socket.display())).unwrap();
    let client = crate::support::client_of(endpoint.connect().await.unwrap());
    execute(&client, request("echo", "{}")).await.unwrap();
    assert_eq!(execute(&client, request("not", "{}")).await.unwrap_err().reason, "CALLER_DENIED");

    let address = format!("unix:{}", socket.display());
    let called = tokio::task::spawn_blocking(move || run(&["call", "echo", "--address", &address])).await.unwrap();
    assert_eq!(called.status.code(), Some(0), "{}", String::from_utf8_lossy(&called.stderr));
    process.signal("TERM");
    assert_eq!(eventually("the end", async || process.exit_code()).await, 0);
    assert!(!socket.exists(), "the file goes with the service");
}

#[tokio::test]
async fn only_a_socket_that_nobody_serves_is_replaced() {
    let directory = Directory::new();
    let path = directory.0.join("s.sock");
    let bind = async || Listener::bind(&Listen::Unix(path.clone()), 0o660).await;
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "left behind by a process that is gone");
    let first = bind().await.unwrap();
    assert!(bind().await.is_err(), "somebody serves it");
    assert!(path.exists(), "and goes on");
    drop(first);
    assert!(!path.exists());
    fs::write(&path, "a file").unwrap();
    assert!(bind().await.is_err());
    assert_eq!(fs::read_to_string(&path).unwrap(), "a file");
    assert_eq!(fs::read_dir(&directory.0).unwrap().count(), 1, "nothing is left behind");
}
