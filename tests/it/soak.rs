//! A soak, of a few seconds unless `LAMBDA_POLICY_SOAK` asks for more: what comes and goes leaves nothing behind.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use lambda_policy::{
    admission::Limits,
    config::Config,
    execute::Engine,
    grpc::{Front, Options, Socket},
    http::facade,
};
use tokio::net::TcpListener;
use tokio_stream::{StreamExt, wrappers::TcpListenerStream};

use crate::{
    binary::Process,
    support::{
        Directory,
        churn::{Churn, configuration, length, memory, open_files},
        client, eventually, execute, lambda,
        proxy::Proxy,
        request,
    },
};

/// The figures, for whoever lets it run for long.
#[allow(clippy::print_stdout)]
fn show(figures: &str) {
    println!("{figures}");
}

/// The engine and its front on a runtime of their own, where everything can be counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_soak_leaves_no_call_no_byte_no_stream_and_no_task_behind() {
    let lambda = Arc::new(lambda().await);
    let proxy = Proxy::start(lambda.url()).await;
    let parse = |text: &str| Config::parse(text, "f.yaml".as_ref());
    let policies = parse(&configuration(&lambda, &proxy, 0)).unwrap_or_else(|faults| panic!("{faults}")).policies;
    let limits = Limits { in_flight: 64, bytes: 64 << 20 };
    lambda_policy::lambda::install_crypto();
    let engine =
        Arc::new(Engine::new(policies, limits, 1, lambda_policy::telemetry::Metrics::new(true, None, 0).unwrap()));
    let options = Options {
        max_connection_age: Duration::from_secs(1),
        max_connections: 4096,
        max_streams: 2048,
        tls: None,
        load_reports: None,
    };
    let front = Front::new(Arc::clone(&engine), options, facade::routes(Arc::clone(&engine))).await;
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let tasks = runtime.handle().clone();
    let serving = runtime.spawn(async move {
        let connections = TcpListenerStream::new(TcpListener::from_std(listener).unwrap());
        let sockets = connections.map(|connection| connection.map(Socket::Left));
        front.serve(sockets, std::future::pending()).await.unwrap();
    });
    let reloading = Arc::clone(&engine);
    let churn = Churn::start(lambda, proxy, address, move |text| {
        if let Ok(config) = parse(text) {
            reloading.replace(config.policies);
        }
    });
    tokio::time::sleep(length()).await;
    let (lambda, counts, _proxy) = churn.stop().await;

    let left = || {
        let admission = engine.admission();
        let alive = tasks.metrics().num_alive_tasks();
        // One serves, each idle connection to Lambda has one, and one closes those that are idle for long.
        let needless = alive.saturating_sub(2 + usize::try_from(lambda.open()).unwrap());
        (admission.in_flight(), admission.waiting(), admission.bodies().held(), lambda.streams_open(), needless)
    };
    let nothing = async || (left() == (0, 0, 0, 0, 0)).then_some(());
    for _ in 0..500 {
        if nothing().await.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(left(), (0, 0, 0, 0, 0), "in flight, waiting, bytes of bodies, streams and tasks: {counts:?}");
    let mut of_policies = 0;
    engine.admission().policies(|_, figures| of_policies += figures.in_flight + figures.waiting);
    assert_eq!(of_policies, 0);
    show(&format!("in process: {counts:?}, {} tasks", tasks.metrics().num_alive_tasks()));
    assert!(counts.answered.load(Relaxed) > 100 && counts.reloads.load(Relaxed) > 10, "{counts:?}");
    serving.abort();
    runtime.shutdown_background();
}

/// The program as a process, whose memory and sockets can be counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_soak_leaves_no_socket_and_no_memory_behind() {
    let lambda = Arc::new(lambda().await);
    let proxy = Proxy::start(lambda.url()).await;
    let directory = Arc::new(Directory::new());
    let file = directory.write("f.yaml", &configuration(&lambda, &proxy, 0));
    let process = Arc::new(Process::serve(&file, &[("LAMBDA_POLICY_LOG", "error,lambda_policy::app=info")]));
    let address = eventually("the service", async || process.address("grpc")).await;
    let caller = client(&address).await;
    execute(&caller, request("echo", "{}")).await.unwrap();
    let (files, id) = (open_files(process.id()), process.id());
    let (reloading, written) = (Arc::clone(&process), Arc::clone(&directory));
    let churn = Churn::start(lambda, proxy, address.parse().unwrap(), move |text| {
        written.write("f.yaml", text);
        reloading.signal("HUP");
    });
    let (began, length, mut samples) = (Instant::now(), length(), Vec::new());
    while began.elapsed() < length {
        tokio::time::sleep(length / 40).await;
        samples.push((began.elapsed().as_secs_f64(), memory(id)));
    }
    let (lambda, counts, proxy) = churn.stop().await;

    // The first of all calls is not one of the churn's.
    assert!(counts.answered.load(Relaxed) > 100 && counts.reloads.load(Relaxed) > 10, "{counts:?}");
    // Connections to Lambda stay for a while, those of the callers do not.
    let most = || files + usize::try_from(lambda.open()).unwrap() + proxy.open() + 2;
    eventually("sockets are closed", async || (open_files(id) <= most()).then_some(())).await;
    // What the proxy has broken off may have opened the function's breaker.
    let well = async || execute(&caller, request("stream", r#"{"chunks": 1, "every": 0}"#)).await.ok();
    eventually("the function is called again", well).await;
    // Every place is free again.
    let calls: Vec<_> = (0..40)
        .map(|_| {
            let caller = caller.clone();
            tokio::spawn(async move { execute(&caller, request("stream", r#"{"chunks": 2, "every": 250}"#)).await })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    let (early, late) = samples[samples.len() / 4..].split_at(samples.len() * 3 / 8);
    let mean = |samples: &[(f64, f64)]| samples.iter().map(|(_, kib)| kib).sum::<f64>() / samples.len() as f64 / 1024.0;
    let (before, after) = (mean(early), mean(late));
    show(&format!(
        "process: {counts:?}, files {files} to {}, memory {:.1} MiB at first, {before:.1} to {after:.1} MiB, {:.1} at last",
        open_files(id),
        samples[0].1 / 1024.0,
        samples.last().unwrap().1 / 1024.0,
    ));
    // What is kept for good, such as a client for each of the last secrets, grows to its limit in the first minutes.
    assert!(after - before < 16.0, "from {before:.1} to {after:.1} MiB: {samples:?}");
}
