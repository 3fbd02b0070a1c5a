//! Blocks that are run: a reader who types what stands there, and nothing else, gets where it leads.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use support::audit_log::of_type;
use support::caller::Caller;
use support::daemon::{Daemon, poll};
use support::request::encrypt_body;
use support::site::{Configuration, Site, Tenant, text};

use crate::blocks::script;
use crate::markdown::pages;

/// All blocks of a page that are tagged `run:NAME`, one after the other.
fn procedure(page: &str, name: &str) -> String {
    let pages = pages();
    let page = pages.iter().find(|it| it.path == page).unwrap_or_else(|| panic!("no {page}"));
    let blocks = page.blocks.iter().filter(|block| block.tag("run:") == Some(name));
    let scripts: Vec<String> = blocks.map(script).collect();
    assert!(!scripts.is_empty(), "{} has no procedure {name}", page.path);
    scripts.concat()
}

/// Runs a script in a shell that ends at the first failure, with the xksd under test.
fn run(directory: &Path, script: &str, variables: &[(&str, &str)]) -> Output {
    let folder = Path::new(env!("CARGO_BIN_EXE_xksd")).parent().unwrap().display();
    let path = format!("{folder}:{}", std::env::var("PATH").unwrap());
    // What it has started does not outlive it.
    let script = format!("trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{script}");
    Command::new("timeout")
        .args(["--kill-after=5", "300", "bash", "-euo", "pipefail", "-c", &script])
        .current_dir(directory)
        .env_clear()
        .env("PATH", path)
        .env("HOME", directory)
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

#[track_caller]
fn good(output: &Output) -> String {
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{stdout}\n{stderr}", output.status);
    stdout
}

/// One that nothing listens on, and outside of those that the kernel gives to whoever asks for none.
fn free_port() -> String {
    let begin = 12_000 + (std::process::id() % 100) as u16 * 200;
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    (begin..begin + 200).find(free).expect("one of them is free").to_string()
}

#[test]
fn the_quick_start_leads_to_a_round_trip_and_the_drill_to_another() {
    let directory = tempfile::tempdir().unwrap();
    let start = procedure("docs/quick-start.md", "by-hand");
    let drill = procedure("docs/disaster-recovery.md", "drill");
    let script = format!("{start}\necho the drill\n{drill}");
    let port = free_port();
    let ops = (port.parse::<u16>().unwrap() + 1..)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    let script = script.replace("8443", &port).replace("9443", &ops.unwrap().to_string());
    // A whole test run keeps the machine busy: as much time as KMS itself would give.
    let output = run(directory.path(), &script, &[("XKSD_SERVER__DEADLINE", "250ms")]);
    let said = good(&output);
    let (start, drill) = said.split_once("the drill").unwrap();
    for said in [start, drill] {
        assert!(said.lines().any(|line| line == "a data key, for one"), "{said}");
    }
    assert!(start.contains("\"keySpec\":\"AES_256\"") && start.contains("ACTIVE"), "{start}");
    assert!(drill.contains("doctor says that the token is not there"), "{drill}");
}

/// A site that has served a request and recorded it, and its id.
fn recorded() -> (Site, &'static str) {
    const ID: &str = "3f0c8a4e-request-of-a-test";
    let demo = Tenant::new("demo", "demo", &["demo-*"], 'A');
    let mut configuration = Configuration::new(vec![demo.clone()]);
    let lines = [("token", text("softhsm")), ("checkpoint_interval", text("1s"))];
    configuration.audit = Some(lines.into());
    let site = Site::new(env!("CARGO_BIN_EXE_xksd"));
    site.configure(&configuration);
    site.run(&["audit", "create-key"]);
    site.create_key("demo-key", "encrypt,decrypt");
    let daemon = Daemon::start(site);
    let kms = Caller::new(&daemon, &demo);
    let mut body = encrypt_body(b"x", None);
    body["requestMetadata"]["kmsRequestId"] = ID.into();
    kms.accepted("keys/demo-key/encrypt", &body);
    let log = daemon.site.audit();
    let is_signed = || {
        let last = of_type(&log, "request").pop().map(|record| record["seq"].as_u64());
        let signed = of_type(&log, "checkpoint").pop();
        last.is_some() && signed.map(|record| record["statement"]["seq"].as_u64()) >= last
    };
    poll(is_signed, || "no checkpoint of the request".into());
    let site = daemon.site.clone();
    daemon.signal("TERM");
    assert_eq!(daemon.wait_exit().0.code(), Some(0));
    (std::sync::Arc::try_unwrap(site).unwrap(), ID)
}

#[test]
fn an_auditor_gets_what_the_guide_promises() {
    let (site, id) = recorded();
    let directory = tempfile::tempdir().unwrap();
    let configuration = site.path().join("xksd.toml").display().to_string();
    let (variable, conf) = site.token.env();
    let audit = site.audit().display().to_string();
    let variables = [
        ("XKSD_CONFIG", configuration.as_str()),
        ("AUDIT_DIRECTORY", &audit),
        (variable, conf.to_str().unwrap()),
    ];
    good(&run(directory.path(), &procedure("docs/audit-guide.md", "operator"), &variables));
    // The auditor's machine has neither token nor configuration.
    drop(site);
    let script = procedure("docs/audit-guide.md", "auditor");
    let said = good(&run(directory.path(), &script, &[("REQUEST_ID", id)]));
    assert!(said.contains("was changed"), "{said}");
    let found = |file: &str| std::fs::read_to_string(directory.path().join(file)).unwrap();
    assert!(found("uses.jsonl").contains(id), "{said}");
    assert!(found("administration.jsonl").contains("\"step\":\"begun\""), "{said}");
}
