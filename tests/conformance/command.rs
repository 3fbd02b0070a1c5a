//! The command line of `xksd conformance`.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use support::site::{Credential, REGION};

use crate::faults::{FAULTS, Fault};
use crate::proxy::{PREFIX, Proxy, Server};

/// Runs the command with nothing in the environment, in a directory that holds the secret.
async fn conformance(directory: &Path, arguments: Vec<String>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xksd"));
    command.arg("conformance").args(arguments).env_clear().current_dir(directory);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn arguments(server: &Server, more: &[&str]) -> Vec<String> {
    let url = format!("http://{}/{PREFIX}", server.address);
    let id = Credential::of('A').id;
    let fixed = [&url, "--access-key-id", &id, "--secret-file", "secret", "--region", REGION];
    let key = ["--key", "key"];
    fixed.iter().chain(&key).chain(more).map(|word| (*word).to_owned()).collect()
}

fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let secret = Credential::of('A').secret;
    std::fs::write(directory.path().join("secret"), format!("{secret}\n")).unwrap();
    directory
}

fn text(bytes: &[u8]) -> String {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    assert!(!text.contains(&Credential::of('A').secret), "a secret was said: {text}");
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_are_for_people_and_for_programs() {
    let proxy = Proxy::new().await;
    let directory = directory();
    let sound = proxy.serve(Fault::NONE).await;
    let said = conformance(directory.path(), arguments(&sound, &["--only", "P-43"])).await;
    let (stdout, stderr) = (text(&said.stdout), text(&said.stderr));
    assert_eq!(said.status.code(), Some(0), "{stdout}{stderr}");
    assert_eq!(stdout, "ok   P-43            M cdiv\n");
    let first = "1 cases, 8 requests (up to 16 of a busy proxy), at most 300 seconds\n";
    assert!(stderr.starts_with(first), "{stderr}");
    assert!(stderr.contains("1 passed, 0 failed"), "{stderr}");

    let fault = *FAULTS.iter().find(|fault| fault.found_by == "cdiv").unwrap();
    let broken = proxy.serve(fault).await;
    let more = ["--only", "cdiv", "--json", "--junit", "report.xml"];
    let said = conformance(directory.path(), arguments(&broken, &more)).await;
    assert_eq!(said.status.code(), Some(1));
    let report: Value = serde_json::from_str(&text(&said.stdout)).unwrap();
    assert_eq!(report["cases"][0]["outcome"], "failed");
    assert_eq!(report["cases"][0]["rules"][0], "P-43");
    let junit = std::fs::read_to_string(directory.path().join("report.xml")).unwrap();
    assert!(junit.contains("failures=\"1\"") && junit.contains("classname=\"P-43\""), "{junit}");

    let more = ["--only", "cdiv", "--junit", "nowhere/report.xml"];
    let said = conformance(directory.path(), arguments(&sound, &more)).await;
    assert_eq!(said.status.code(), Some(74));
    assert!(text(&said.stderr).contains("error: cannot write `nowhere/report.xml`"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_be_examined_is_said() {
    let proxy = Proxy::new().await;
    let directory = directory();
    let server = proxy.serve(Fault::NONE).await;
    for (more, words) in [
        (&["--only", "P-45"][..], "neither a rule that can be examined"),
        (&["--other-url", "http://127.0.0.1:1/x"], "--other-access-key-id"),
        (&["--second-access-key-id", "ABCDEFGHIJKLMNOPQRST"], "--second-secret-file"),
    ] {
        let said = conformance(directory.path(), arguments(&server, more)).await;
        let stderr = text(&said.stderr);
        assert_eq!(said.status.code(), Some(64), "{stderr}");
        assert!(stderr.starts_with("error: ") && stderr.contains(words), "{stderr}");
    }
    let said = conformance(directory.path(), vec![]).await;
    assert_eq!(said.status.code(), Some(64), "{}", text(&said.stderr));
    drop(server);
    // Nobody listens on port 1 of this machine.
    let mut nobody = arguments(&proxy.serve(Fault::NONE).await, &[]);
    nobody[0] = format!("http://127.0.0.1:1/{PREFIX}");
    let said = conformance(directory.path(), nobody).await;
    assert_eq!(said.status.code(), Some(69));
    assert!(text(&said.stderr).contains("does not answer a GetHealthStatus"));
}

/// The list has every rule of the table, examined or not.
#[tokio::test]
async fn the_list_is_that_of_the_document() {
    let said = conformance(directory().path(), vec!["--list".to_owned()]).await;
    assert_eq!(said.status.code(), Some(0));
    assert!(said.stderr.is_empty(), "{}", text(&said.stderr));
    let list = text(&said.stdout);
    assert!(list.starts_with("P-1 P-20 ") && list.ends_with("from outside\n"), "{list}");
    let document = include_str!("../../docs/conformance.md");
    for row in document.lines().filter(|line| line.starts_with("| P-")) {
        let rule = row.trim_matches('|').split_whitespace().next().unwrap();
        let is_listed = list.lines().any(|line| line.split_whitespace().any(|word| word == rule));
        assert!(is_listed, "{rule} is not listed");
    }
}
