//! TLS that no library of ours would speak any more: a hello of TLS 1.1 (P-2).

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest wait for what the server says to it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Type of a TLS record that carries a handshake message: the server goes on.
const HANDSHAKE: u8 = 22;

/// What a server says to TLS 1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// It goes on with the handshake.
    Accepted,
    /// It ends it, with an alert or without.
    Refused,
}

/// Offers TLS 1.1 with the suites that its servers used to have.
///
/// # Errors
/// Words, where there is no connection or no answer in time.
pub(super) async fn offer_tls_1_1(host: &str, port: u16) -> Result<Said, String> {
    let asked = async {
        let mut stream = TcpStream::connect((host, port)).await?;
        stream.write_all(&hello(host)).await?;
        let mut first = [0];
        // A server may also end it by closing or resetting the connection.
        match stream.read(&mut first).await {
            Ok(1) if first[0] == HANDSHAKE => Ok(Said::Accepted),
            _ => Ok(Said::Refused),
        }
    };
    let answer: std::io::Result<Said> =
        timeout(PATIENCE, asked).await.map_err(|_| "no answer to a hello of TLS 1.1")?;
    answer.map_err(|error| error.to_string())
}

/// A ClientHello by RFC 4346, with the extensions that servers of today insist on.
fn hello(host: &str) -> Vec<u8> {
    const SUITES: [u16; 6] = [0xc009, 0xc00a, 0xc013, 0xc014, 0x002f, 0x0035];
    const GROUPS: [u16; 3] = [0x0017, 0x0018, 0x001d];
    // Of no meaning in TLS 1.1, and asked for by those who would choose TLS 1.2 if they could.
    const SIGNATURES: [u16; 2] = [0x0401, 0x0403];
    let pairs = |list: &[u16]| list.iter().flat_map(|n| n.to_be_bytes()).collect::<Vec<u8>>();
    let mut extensions = Vec::new();
    if host.parse::<std::net::IpAddr>().is_err() {
        let name = [&[0][..], &counted(host.as_bytes())].concat();
        extensions.extend(extension(0x0000, &counted(&name)));
    }
    extensions.extend(extension(0x000a, &counted(&pairs(&GROUPS))));
    extensions.extend(extension(0x000b, &[1, 0]));
    extensions.extend(extension(0x000d, &counted(&pairs(&SIGNATURES))));
    let body = [
        &[3, 2][..],
        // Nobody will have a secret of it: the random need not be random.
        &[0x5a; 32],
        &[0],
        &counted(&pairs(&SUITES)),
        &[1, 0],
        &counted(&extensions),
    ]
    .concat();
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
    let message = [&[1][..], &length[1..], &body].concat();
    [&[HANDSHAKE, 3, 1][..], &counted(&message)].concat()
}

fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &counted(data)].concat()
}

/// The bytes behind their length in two bytes.
fn counted(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes()[..], bytes].concat()
}

#[cfg(test)]
mod tests {
    use rustls::server::Acceptor;
    use tokio::net::TcpListener;

    use super::*;

    /// The hello is well formed: a server reads it whole, and finds TLS 1.1 in it.
    #[test]
    fn the_hello_can_be_read() {
        let mut acceptor = Acceptor::default();
        acceptor.read_tls(&mut hello("xks.example.com").as_slice()).unwrap();
        let accepted = acceptor.accept().unwrap().expect("it is complete");
        let hello = accepted.client_hello();
        assert_eq!(hello.server_name(), Some("xks.example.com"));
        assert_eq!(hello.cipher_suites().len(), 6);
    }

    #[tokio::test]
    async fn whoever_goes_on_has_accepted() {
        for (answer, said) in
            [(&[22, 3, 2][..], Said::Accepted), (&[21, 3, 2], Said::Refused), (&[], Said::Refused)]
        {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let server = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut hello = [0; 5];
                stream.read_exact(&mut hello).await.unwrap();
                stream.write_all(answer).await.unwrap();
            });
            assert_eq!(offer_tls_1_1("127.0.0.1", port).await, Ok(said), "{answer:?}");
            server.await.unwrap();
        }
    }
}
