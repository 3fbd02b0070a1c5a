//! PROXY protocol version 2: who a trusted load balancer says the client is.
//!
//! The header is read only from peers that the configuration names, and must then be there;
//! anybody else's is not looked for, so that a stranger can't claim another's address.

use std::io;
use std::net::{IpAddr, SocketAddr};

use ppp::v2::{Addresses, Command, Header, PROTOCOL_PREFIX};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Fixed part of the header: signature, version and command, family, length.
const FIXED: usize = 16;

/// Longest rest that is read: addresses and a few TLVs, a VPC endpoint id for one.
const MAX_REST: usize = 2048;

/// Why a connection's header can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ProxyHeaderError {
    /// The peer is trusted to send one, and sent something else.
    #[error("no PROXY protocol v2 header")]
    Missing,
    /// It claims to be longer than any header needs to be.
    #[error("PROXY header of {0} bytes")]
    TooLong(usize),
    /// It can't be understood.
    #[error("malformed PROXY header")]
    Malformed,
    /// The connection ended.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Reads the header, which must be the first thing that comes. Gives the client's address;
/// `peer` itself for a connection that the balancer made for its own health check.
pub async fn read(
    stream: &mut (impl AsyncRead + Unpin),
    peer: SocketAddr,
) -> Result<SocketAddr, ProxyHeaderError> {
    let mut header = vec![0; FIXED];
    stream.read_exact(&mut header).await?;
    if !header.starts_with(PROTOCOL_PREFIX) {
        return Err(ProxyHeaderError::Missing);
    }
    let rest = usize::from(u16::from_be_bytes([header[14], header[15]]));
    if rest > MAX_REST {
        return Err(ProxyHeaderError::TooLong(rest));
    }
    header.resize(FIXED + rest, 0);
    stream.read_exact(&mut header[FIXED..]).await?;
    let header = Header::try_from(&*header).map_err(|_| ProxyHeaderError::Malformed)?;
    if header.command == Command::Local {
        return Ok(peer);
    }
    match header.addresses {
        Addresses::IPv4(a) => Ok(SocketAddr::new(IpAddr::V4(a.source_address), a.source_port)),
        Addresses::IPv6(a) => Ok(SocketAddr::new(IpAddr::V6(a.source_address), a.source_port)),
        Addresses::Unix(_) | Addresses::Unspecified => Ok(peer),
    }
}

#[cfg(test)]
mod tests {
    use ppp::v2::{Builder, Protocol, Version};

    use super::*;

    const PEER: &str = "10.0.0.1:4000";

    async fn read_bytes(bytes: &[u8]) -> Result<SocketAddr, ProxyHeaderError> {
        read(&mut &bytes[..], PEER.parse().unwrap()).await
    }

    fn header(command: Command) -> Vec<u8> {
        let source: SocketAddr = "192.0.2.7:50000".parse().unwrap();
        let destination: SocketAddr = "10.0.0.2:443".parse().unwrap();
        let command = Version::Two | command;
        let addresses = (source, destination);
        Builder::with_addresses(command, Protocol::Stream, addresses).build().unwrap()
    }

    #[tokio::test]
    async fn the_clients_address_is_taken() {
        let address = read_bytes(&header(Command::Proxy)).await.unwrap();
        assert_eq!(address.to_string(), "192.0.2.7:50000");
        let own = read_bytes(&header(Command::Local)).await.unwrap();
        assert_eq!(own.to_string(), PEER);
    }

    #[tokio::test]
    async fn nothing_beyond_the_header_is_read() {
        let mut bytes = header(Command::Proxy);
        bytes.extend_from_slice(b"TLS");
        let mut stream = &bytes[..];
        read(&mut stream, PEER.parse().unwrap()).await.unwrap();
        assert_eq!(stream, b"TLS");
    }

    #[tokio::test]
    async fn bad_headers_are_refused() {
        let tls_hello = [22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3, 0, 0, 0, 0, 0];
        assert!(matches!(read_bytes(&tls_hello).await, Err(ProxyHeaderError::Missing)));
        let mut long = header(Command::Proxy);
        long[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
        assert!(matches!(read_bytes(&long).await, Err(ProxyHeaderError::TooLong(65535))));
        let mut version = header(Command::Proxy);
        version[12] = 0x31;
        assert!(matches!(read_bytes(&version).await, Err(ProxyHeaderError::Malformed)));
        let cut = &header(Command::Proxy)[..20];
        assert!(matches!(read_bytes(cut).await, Err(ProxyHeaderError::Io(_))));
    }
}
