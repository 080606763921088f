//! One HTTP/2 connection and the calls over it, made ready beforehand.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::{self, SendRequest};
use http::{HeaderValue, Request, StatusCode};
use lambda_policy::pb::{ExecutePolicyRequest, execute_policy_request::Input};
use prost::Message;
use tokio::net::TcpStream;

use super::{Args, Lane, json};
use crate::{Outcome, service};

/// Large enough that no answer waits for the load's window.
const WINDOW: u32 = 64 << 20;

/// A connection; clones share it.
#[derive(Clone)]
pub(super) struct Connection {
    send: SendRequest<Bytes>,
    calls: Arc<Calls>,
}

/// What is sent, and what must come back.
struct Calls {
    head: Request<()>,
    bodies: Vec<Bytes>,
    lane: Lane,
    /// Bytes of an answer at the least.
    reply: usize,
}

impl Connection {
    pub(super) async fn open(args: &Args) -> Outcome<Self> {
        let stream = TcpStream::connect(args.address).await?;
        stream.set_nodelay(true)?;
        let (send, connection) = client::Builder::new()
            .initial_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_frame_size(64 * 1024)
            .handshake(stream)
            .await?;
        tokio::spawn(connection);
        Ok(Self { send, calls: Arc::new(Calls::new(args)?) })
    }

    pub(super) async fn call(&mut self, turn: usize) -> Outcome<()> {
        let body = self.calls.bodies.get(turn % self.calls.bodies.len()).cloned().unwrap_or_default();
        let mut send = self.send.clone().ready().await?;
        let (response, mut stream) = send.send_request(self.calls.head.clone(), false)?;
        stream.send_data(body, true)?;
        let response = response.await?;
        if response.status() != StatusCode::OK {
            return Err(format!("the target answered {}", response.status()).into());
        }
        let refused = response.headers().get("grpc-status").cloned();
        let mut body = response.into_body();
        let mut size = 0;
        while let Some(data) = body.data().await {
            let data = data?;
            size += data.len();
            body.flow_control().release_capacity(data.len())?;
        }
        if self.calls.lane == Lane::Grpc {
            let trailers = body.trailers().await?;
            let status = trailers.as_ref().and_then(|trailers| trailers.get("grpc-status")).or(refused.as_ref());
            if status.is_none_or(|status| status != "0") {
                return Err(format!("the target answered grpc-status {status:?}: {trailers:?}").into());
            }
        }
        if size < self.calls.reply {
            return Err(format!("the target answered {size} bytes").into());
        }
        Ok(())
    }
}

impl Calls {
    fn new(args: &Args) -> Outcome<Self> {
        let payload = Bytes::from(json(args.payload));
        let (path, content_type) = match args.lane {
            Lane::Grpc => ("lambdapolicy.v1.PolicyService/ExecutePolicy", "application/grpc"),
            _ => ("", "application/json"),
        };
        let mut head =
            Request::post(format!("http://{}/{path}", args.address)).header("content-type", content_type).body(())?;
        match args.lane {
            Lane::Grpc => head.headers_mut().insert("te", HeaderValue::from_static("trailers")),
            // Without it Envoy would send chunks, which Lambda does not take.
            _ => head.headers_mut().insert("content-length", payload.len().into()),
        };
        let bodies = match args.lane {
            // A large payload would be kept once for each policy.
            Lane::Grpc if args.payload > 64 * 1024 => vec![message(0, &payload)?],
            Lane::Grpc => (0..args.policies).map(|number| message(number, &payload)).collect::<Outcome<_>>()?,
            _ => vec![payload],
        };
        Ok(Self { head, bodies, lane: args.lane, reply: args.reply })
    }
}

/// The gRPC message with its prefix.
fn message(policy: usize, payload: &Bytes) -> Outcome<Bytes> {
    let request = ExecutePolicyRequest {
        policy: service::policy(policy),
        input: Some(Input::Payload(payload.clone())),
        ..Default::default()
    };
    let mut bytes = BytesMut::with_capacity(5 + request.encoded_len());
    bytes.put_u8(0);
    bytes.put_u32(request.encoded_len().try_into()?);
    request.encode(&mut bytes)?;
    Ok(bytes.freeze())
}
