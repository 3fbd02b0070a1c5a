//! The command line of `xksd bench`: what it refuses, and how.

use std::fs;
use std::net::TcpListener;
use std::process::{Command, Output};

const CREDENTIAL: [&str; 6] =
    ["--access-key-id", "ABCDEFGHIJKLMNOPQRST", "--region", "us-east-1", "--key", "demo-key"];

/// Runs the command with nothing in the environment but this.
fn bench(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xksd"))
        .arg("bench")
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

#[track_caller]
fn refused(output: &Output, code: i32, words: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(stderr.starts_with("error: ") && stderr.contains(words), "`{words}` not in: {stderr}");
    assert!(output.stdout.is_empty(), "stdout is for data");
}

#[test]
fn a_secret_comes_from_a_file_or_the_environment() {
    let url = ["http://127.0.0.1:1/demo"];
    let without = bench(&[&url[..], &CREDENTIAL].concat(), &[]);
    refused(&without, 64, "SIGV4_SECRET_ACCESS_KEY");
    // P-14: 43 characters at least; nothing of it is shown.
    let short = bench(&[&url[..], &CREDENTIAL].concat(), &[("SIGV4_SECRET_ACCESS_KEY", "hunter2")]);
    refused(&short, 64, "43 to 64 characters");
    assert!(!String::from_utf8_lossy(&short.stderr).contains("hunter2"));
    let missing = ["--secret-file", "/nonexistent/secret"];
    let missing = bench(&[&url[..], &CREDENTIAL, &missing].concat(), &[]);
    refused(&missing, 64, "/nonexistent/secret");
}

#[test]
fn the_names_of_client_env_are_taken_from_the_environment() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let environment = [
        ("SIGV4_ACCESS_KEY_ID", "ABCDEFGHIJKLMNOPQRST"),
        ("SIGV4_SECRET_ACCESS_KEY", "sssssssssssssssssssssssssssssssssssssssssss"),
        ("REGION", "us-east-1"),
        ("KEY_ID", "demo-key"),
    ];
    let output = bench(&[&format!("http://{nobody}/demo")], &environment);
    refused(&output, 69, "cannot connect");
}

#[test]
fn a_wrong_command_line_is_64() {
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret");
    fs::write(&secret, format!("{}\n", "s".repeat(43))).unwrap();
    let common = [&CREDENTIAL[..], &["--secret-file", secret.to_str().unwrap()]].concat();
    for (arguments, words) in [
        (&["http://10.0.0.1/demo"][..], "loopback"),
        (&["localhost:8443"], "https://host"),
        (&["http://127.0.0.1:1", "--rate", "0"], "0.001"),
        (&["http://127.0.0.1:1", "--concurrency", "0"], "from 1"),
        (&["http://127.0.0.1:1", "--connections", "2"], "--http2"),
        (&["http://127.0.0.1:1", "--concurrency", "2", "--connections", "3"], "never be used"),
        (&["http://127.0.0.1:1", "--plaintext-size", "8193"], "8192"),
        (&["http://127.0.0.1:1", "--operation", "sign"], "encrypt=3,decrypt=1"),
        (&["http://127.0.0.1:1", "--operation", "encrypt=0,decrypt=1"], "weights of 1 to 100"),
        (&["http://127.0.0.1:1", "--operation", "health,health"], "each once"),
        (&["http://127.0.0.1:1", "--find-capacity", "--rate", "5"], "--rate"),
        (&["http://127.0.0.1:1", "--compare", "http://10.0.0.1/x"], "loopback"),
        (&["http://127.0.0.1:1", "--new-connections", "--connections", "2"], "--connections"),
        (&["https://127.0.0.1:1", "--cacert", "/nonexistent.pem"], "/nonexistent.pem"),
        (&["https://127.0.0.1:1", "--client-cert", "c.pem"], "--client-key"),
    ] {
        refused(&bench(&[arguments, &common].concat(), &[]), 64, words);
    }
}
