//! A function as a process: the runtime loop, and an order handler for the demo.

use std::{env, io, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};

/// Runs the function until the process is killed. The function takes `{"item": …, "quantity": …}`; `{"crash": true}`
/// ends the process, `{"error": true}` reports an error, and `{"sleep_ms": N}` takes its time.
///
/// # Errors
/// If it was not started by Lambda, or Lambda cannot be reached.
pub async fn serve_sample() -> io::Result<()> {
    let api = env::var("AWS_LAMBDA_RUNTIME_API").map_err(|_| {
        io::Error::other("AWS_LAMBDA_RUNTIME_API is not set: this is started by `dev --function NAME=COMMAND`")
    })?;
    let base = format!("http://{api}/2018-06-01/runtime/invocation");
    let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let mut orders = 0_u32;
    loop {
        let next = send(&client, Method::GET, &format!("{base}/next"), Bytes::new()).await?;
        let id = next
            .headers()
            .get("lambda-runtime-aws-request-id")
            .and_then(|id| id.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let event: Value = serde_json::from_slice(next.body()).unwrap_or_default();
        orders += 1;
        let (path, answer) = match order(&event, orders).await {
            Ok(answer) => ("response", answer),
            Err(error) => ("error", error),
        };
        send(&client, Method::POST, &format!("{base}/{id}/{path}"), answer.to_string().into()).await?;
    }
}

async fn order(event: &Value, number: u32) -> Result<Value, Value> {
    if let Some(ms) = event["sleep_ms"].as_u64() {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
    if event["crash"] == json!(true) {
        std::process::exit(1);
    }
    if event["error"] == json!(true) {
        return Err(json!({"errorType": "SoldOut", "errorMessage": "nothing is left"}));
    }
    Ok(json!({
        "order": number,
        "item": event["item"],
        "quantity": event["quantity"],
        "process": std::process::id(),
        "region": env::var("AWS_REGION").unwrap_or_default(),
    }))
}

async fn send(
    client: &Client<HttpConnector, Full<Bytes>>,
    method: Method,
    uri: &str,
    body: Bytes,
) -> io::Result<Response<Bytes>> {
    let request = Request::builder().method(method).uri(uri).body(Full::new(body)).map_err(io::Error::other)?;
    let (head, body) = client.request(request).await.map_err(io::Error::other)?.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    Ok(Response::from_parts(head, body))
}
