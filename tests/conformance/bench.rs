//! `xksd bench`: what it counts, writes and compares. Nothing of how fast it is.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use support::site::{Credential, REGION};

use crate::faults::Fault;
use crate::proxy::{PREFIX, Proxy, Server};

fn url(server: &Server) -> String {
    format!("http://{}/{PREFIX}", server.address)
}

/// Runs a bench in this directory; gives what it printed, line by line.
async fn bench(directory: &Path, server: &Server, more: &[&str]) -> (Output, Vec<Value>) {
    let Credential { id, secret } = Credential::of('A');
    std::fs::write(directory.join("secret"), secret).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_xksd"));
    command
        .args(["bench", &url(server), "--key", "key", "--region", REGION])
        .args(["--access-key-id", &id, "--secret-file", "secret"])
        // Long enough for any machine: the number of requests ends the run.
        .args(["--warmup", "0", "--duration", "600", "--concurrency", "2", "--timeout", "60"])
        .args(more)
        .env_clear()
        .current_dir(directory);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let lines = String::from_utf8(output.stdout.clone()).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (output, lines)
}

/// Every answer was good, so many of them.
#[track_caller]
fn good(report: &Value, answers: u64) {
    assert_eq!(report["errors"], serde_json::json!({}), "{report}");
    assert_eq!(report["ok"], answers, "{report}");
    assert!(report["latency_us"]["p50"].as_u64().is_some(), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mix_over_new_connections_is_drawn() {
    let directory = tempfile::tempdir().unwrap();
    let server = Proxy::new().await.serve(Fault::NONE).await;
    let mix = "encrypt=2,encrypt-cdiv=1,decrypt=1,metadata=1,health=1";
    let more = ["--operation", mix, "--requests", "30", "--new-connections", "--svg", "plot.svg"];
    let (output, lines) = bench(directory.path(), &server, &more).await;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert_eq!(lines.len(), 1);
    good(&lines[0], 30);
    assert_eq!(lines[0]["operation"], mix);
    assert_eq!(lines[0]["new_connections"], true);
    assert!(stderr.contains("each on a new connection"), "{stderr}");
    assert!(!stderr.contains('\r'), "no progress where there is no terminal");
    let svg = std::fs::read_to_string(directory.path().join("plot.svg")).unwrap();
    assert_eq!(svg.matches("<polyline").count(), 1, "{svg}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_proxies_are_compared() {
    let directory = tempfile::tempdir().unwrap();
    let proxy = Proxy::new().await;
    let (server, other) = (proxy.serve(Fault::NONE).await, proxy.serve(Fault::NONE).await);
    let other = url(&other);
    let more = ["--requests", "20", "--compare", &other, "--svg", "plot.svg"];
    let (output, lines) = bench(directory.path(), &server, &more).await;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let [first, second, ratios] = &lines[..] else { panic!("{lines:?}") };
    good(first, 20);
    good(second, 20);
    assert_ne!(first["url"], second["url"]);
    assert_eq!((&ratios["url"], &ratios["compared_with"]), (&first["url"], &second["url"]));
    assert!(ratios["rate_ratio"].as_f64().is_some_and(|ratio| ratio > 0.0), "{ratios}");
    let svg = std::fs::read_to_string(directory.path().join("plot.svg")).unwrap();
    assert_eq!(svg.matches("<polyline").count(), 2, "{svg}");
    let more = ["--requests", "2", "--svg", "nowhere/plot.svg"];
    let (output, _) = bench(directory.path(), &server, &more).await;
    assert_eq!(output.status.code(), Some(74));
}
