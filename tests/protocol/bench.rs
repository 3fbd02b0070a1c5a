//! `xksd bench` against the daemon: what it counts, writes and compares. Nothing of how fast it is.

use std::process::{Command, Output};

use serde_json::Value;
use support::site::REGION;

use crate::world::{XKSD, daemon, demo};

/// Runs a bench of a few requests in this directory.
fn bench(directory: &std::path::Path, more: &[&str]) -> (Output, Vec<Value>) {
    let (daemon, demo) = (daemon(), demo());
    std::fs::write(directory.join("secret"), &demo.credentials[0].secret).unwrap();
    let url = format!("https://localhost:{}/{}", daemon.address.port(), demo.prefix);
    let output = Command::new(XKSD)
        .args(["bench", &url, "--key", "demo-key", "--region", REGION])
        .args(["--access-key-id", &demo.credentials[0].id, "--secret-file", "secret"])
        .arg("--cacert")
        .arg(daemon.site.authority.certificate())
        // Long enough for any machine: the number of requests ends the run.
        .args(["--warmup", "0", "--duration", "600", "--concurrency", "2", "--timeout", "60"])
        .args(more)
        .env_clear()
        .current_dir(directory)
        .output()
        .unwrap();
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

#[test]
fn a_mix_over_new_connections_is_drawn() {
    let directory = tempfile::tempdir().unwrap();
    let mix = "encrypt=2,encrypt-cdiv=1,decrypt=1,metadata=1,health=1";
    let more = ["--operation", mix, "--requests", "30", "--new-connections", "--svg", "plot.svg"];
    let (output, lines) = bench(directory.path(), &more);
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

#[test]
fn two_proxies_are_compared() {
    let directory = tempfile::tempdir().unwrap();
    let root = format!("https://localhost:{}/{}", daemon().address.port(), demo().prefix);
    let more = ["--requests", "20", "--compare", &root, "--svg", "plot.svg"];
    let (output, lines) = bench(directory.path(), &more);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let [first, second, ratios] = &lines[..] else { panic!("{lines:?}") };
    good(first, 20);
    good(second, 20);
    assert_eq!(ratios["compared_with"], second["url"]);
    assert!(ratios["rate_ratio"].as_f64().is_some_and(|ratio| ratio > 0.0), "{ratios}");
    let svg = std::fs::read_to_string(directory.path().join("plot.svg")).unwrap();
    assert_eq!(svg.matches("<polyline").count(), 2, "{svg}");
    let (output, _) = bench(directory.path(), &["--requests", "2", "--svg", "nowhere/plot.svg"]);
    assert_eq!(output.status.code(), Some(74));
}
