//! hyper and rustls with nothing behind them: `tests/speed.sh` compares xksd with it.
//!
//! `bare_echo ADDRESS CERTIFICATE PRIVATE_KEY` serves HTTPS there until it is killed. The answers are as long as
//! those of xksd, and good enough for `xksd bench`: a ciphertext is its plaintext.

#![expect(clippy::print_stdout, reason = "says when it listens")]

use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// What stands around a ciphertext of xksd's, byte for byte as long.
const SEALED: [&str; 2] = [
    "{\"ciphertext\":",
    ",\"ciphertextMetadata\":\"AQAAAAAAAAAAAAAAAA==\",\"initializationVector\":\"AAAAAAAAAAAAAAAA\",\
     \"authenticationTag\":\"AAAAAAAAAAAAAAAAAAAAAA==\"}",
];
const OPENED: [&str; 2] = ["{\"plaintext\":", "}"];

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, certificate, private_key] = &arguments[..] else {
        println!("bare_echo ADDRESS CERTIFICATE PRIVATE_KEY; tests/speed.sh runs it");
        return Ok(());
    };
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(private_key)?;
    let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(address).await?;
    println!("listens");
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            // Who goes away is no concern of a bench's.
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let _ = auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service_fn(answer))
                .await;
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let encrypts = request.uri().path().ends_with("/encrypt");
    let body = match request.into_body().collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return Ok(refusal()),
    };
    let (member, around) =
        if encrypts { ("\"plaintext\":", SEALED) } else { ("\"ciphertext\":", OPENED) };
    let text = std::str::from_utf8(&body).ok().and_then(|body| body.split_once(member));
    let Some((_, value)) = text else { return Ok(refusal()) };
    let end = value.find([',', '}']).unwrap_or(value.len());
    let body = [around[0], &value[..end], around[1]].concat();
    let answer = Response::builder().header("content-type", "application/json");
    Ok(answer.body(Full::from(body)).unwrap_or_else(|_| refusal()))
}

fn refusal() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = http::StatusCode::BAD_REQUEST;
    response
}
