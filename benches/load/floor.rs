//! The floor: a service that signs and sends and does nothing else.

use crate::{Outcome, grpc, signed::Signed, target::Args};

#[tokio::main]
pub(crate) async fn serve(args: &Args) -> Outcome<()> {
    grpc::serve(Signed::new(args.upstream)).await
}
