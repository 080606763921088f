//! The server's side of handshakes of TLS: which connections come through, and what is said of those that do not.

use std::{io, sync::Arc, time::Duration};

use rustls::{AlertDescription as Alert, CertificateError as Wrong, ServerConfig, server::Acceptor};
use tokio::time::timeout;
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

use super::{
    stream::{self, Socket, Stream},
    tls::Current,
};
use crate::admission::{Connections, Place, Refusal};

/// How long a client may take for its side of the handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Why a handshake failed.
struct Failure {
    error: io::Error,
    /// Whether the client had said what it wants.
    greeted: bool,
}

/// The connection behind the handshake, if that goes well.
pub(super) async fn shake(tls: &Current, connections: &Connections, socket: Socket, place: Place) -> Option<Stream> {
    // Of one that has broken off nobody knows it any more.
    let origin = stream::origin(&socket);
    let accepted = timeout(HANDSHAKE, accept(tls.config(), socket)).await;
    let failure = match accepted {
        Ok(Ok(accepted)) => return Some(Stream::encrypted(accepted, origin, place)),
        Ok(Err(failure)) => failure,
        Err(_) => Failure { error: io::ErrorKind::TimedOut.into(), greeted: false },
    };
    let error = told(&failure.error);
    tracing::debug!(%error, "a handshake failed");
    if let Some(why) = refusal(&failure)
        && let Some(refused) = connections.refuse(why)
    {
        let (reason, peer) = (why.as_str(), origin.map(tracing::field::display));
        tracing::warn!(reason, peer, %error, refused, "connections are refused: their handshakes fail");
    }
    None
}

async fn accept(config: Arc<ServerConfig>, socket: Socket) -> Result<TlsStream<Socket>, Failure> {
    let greeting = LazyConfigAcceptor::new(Acceptor::default(), socket).await;
    let greeting = greeting.map_err(|error| Failure { error, greeted: false })?;
    greeting.into_stream(config).await.map_err(|error| Failure { error, greeted: true })
}

/// Why it failed, in as many words as fit a line: of a certificate it tells as much as the certificate has.
fn told(error: &io::Error) -> String {
    const MOST: usize = 300;
    let mut told = error.to_string();
    told.truncate(told.floor_char_boundary(MOST));
    told
}

/// For what a connection counts as refused. Who goes away without a greeting, as probes of load balancers do, does not.
fn refusal(failure: &Failure) -> Option<Refusal> {
    let Failure { error, greeted } = failure;
    let Some(told) = error.get_ref().and_then(|error| error.downcast_ref()) else {
        return match error.kind() {
            io::ErrorKind::TimedOut => Some(Refusal::Timeout),
            _ => greeted.then_some(Refusal::Closed),
        };
    };
    Some(match told {
        rustls::Error::NoCertificatesPresented => Refusal::NoCertificate,
        rustls::Error::InvalidCertificate(Wrong::Expired | Wrong::ExpiredContext { .. }) => Refusal::CertificateExpired,
        // The other one is of an authority by the name of one that counts.
        rustls::Error::InvalidCertificate(Wrong::UnknownIssuer | Wrong::BadSignature) => Refusal::UnknownAuthority,
        rustls::Error::InvalidCertificate(_) => Refusal::Certificate,
        rustls::Error::AlertReceived(
            Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            // The service's certificate is of an authority by the name of one that the caller trusts.
            | Alert::DecryptError,
        ) => Refusal::Distrusted,
        _ => Refusal::Protocol,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_does_not_fill_the_log() {
        assert_eq!(told(&io::Error::other("brief")), "brief");
        assert_eq!(told(&io::Error::other("ü".repeat(100_000))).len(), 300);
    }

    #[test]
    fn who_hangs_up_before_a_greeting_was_not_refused() {
        for (kind, greeted, expected) in [
            (io::ErrorKind::UnexpectedEof, false, None),
            (io::ErrorKind::ConnectionReset, false, None),
            (io::ErrorKind::UnexpectedEof, true, Some(Refusal::Closed)),
            (io::ErrorKind::ConnectionReset, true, Some(Refusal::Closed)),
            (io::ErrorKind::TimedOut, false, Some(Refusal::Timeout)),
        ] {
            assert_eq!(refusal(&Failure { error: kind.into(), greeted }), expected, "{kind} {greeted}");
        }
    }
}
