//! One thread and one runtime for each worker, with connections handed round among them.
//!
//! A call stays on the thread of its connection: it wakes no other one, and what it sends is batched with what its
//! neighbours send. On a runtime of many threads each wake-up writes by itself, which costs up to half as much again.
//! Gateways hold few, long connections, so these are handed round in turn; the kernel's hash of many listeners would
//! leave workers idle.

use std::{future::pending, io, sync::Arc, thread, time::Duration};

use futures::{FutureExt, stream::once};
use tokio::{
    runtime,
    sync::{mpsc, oneshot, watch},
};
use tokio_stream::{StreamExt, wrappers::UnboundedReceiverStream};

use super::listen::{Accepted, Listener};
use crate::{
    grpc::Front,
    lambda,
    telemetry::{Metrics, writer},
};

/// How long to wait when no connection can be accepted, as when there are too many open files.
const PAUSE: Duration = Duration::from_millis(50);
/// How long the last connections have for their first bytes: without any they would be closed unheard.
const FIRST_BYTES: Duration = Duration::from_millis(100);

/// Serves a listener with this many workers until `leave` is true or gone; ends when the last connection has ended.
///
/// # Errors
/// If a worker cannot start or ends early.
pub(super) async fn serve(
    listener: Listener,
    workers: usize,
    front: Front,
    mut leave: watch::Receiver<bool>,
    metrics: Arc<Metrics>,
) -> io::Result<()> {
    let front = Arc::new(front);
    let mut queues = Vec::with_capacity(workers);
    let mut ended = Vec::with_capacity(workers);
    for number in 0..workers {
        let (queue, connections) = mpsc::unbounded_channel();
        let (end, has_ended) = oneshot::channel();
        let front = Front::clone(&front);
        // The runtime is made here, so that a start that fails is told.
        let runtime = runtime::Builder::new_current_thread().enable_all().on_thread_park(writer::flush).build()?;
        metrics.add_runtime(number.to_string(), runtime.handle());
        thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
            lambda::on_worker(number);
            writer::keep();
            let served = runtime.block_on(work(front, connections));
            // The process may end before this thread does.
            writer::flush();
            // Nobody asks any more once the service has given up waiting.
            let _ = end.send(served);
            // What a worker's calls have left behind is not waited for.
            runtime.shutdown_background();
        })?;
        queues.push(queue);
        ended.push(has_ended);
    }

    let mut next = 0;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // Who has connected by now is let in: a client that has sent its call already would lose it.
            _ = leave.wait_for(|leave| *leave) => match listener.accept().now_or_never() {
                Some(accepted) => accepted,
                None => break,
            },
        };
        match accepted {
            Ok(stream) => {
                let handed = queues.get(next % workers).is_some_and(|queue| queue.send(stream).is_ok());
                if !handed {
                    return Err(io::Error::other("a worker has ended"));
                }
                next = next.wrapping_add(1);
            }
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop((listener, queues));
    for worker in ended {
        worker.await.map_err(|_| io::Error::other("a worker has ended early"))??;
    }
    Ok(())
}

/// Serves connections until the accepting side has no more.
async fn work(front: Front, connections: mpsc::UnboundedReceiver<Accepted>) -> io::Result<()> {
    let (end, ended) = oneshot::channel();
    let last = async {
        let _ = end.send(());
        pending().await
    };
    let streams = UnboundedReceiverStream::new(connections).map(Accepted::arrive).chain(once(last));
    let shutdown = async {
        let _ = ended.await;
        tokio::time::sleep(FIRST_BYTES).await;
    };
    front.serve(streams, shutdown).await.map_err(io::Error::other)
}
