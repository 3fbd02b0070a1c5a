//! `xksd probe`: the health check of a container that has no curl.

use std::fs;
use std::process::Output;
use std::time::Duration;

use support::daemon::{Daemon, poll};
use support::site::{Configuration, Site, text};

use crate::world::{demo, small_site};

fn probe(site: &Site, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = site.command(&[&["probe"], arguments].concat()).output();
    let Output { status, stdout, stderr } = output.expect("xksd can be started");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (status.code(), text(&stdout), text(&stderr))
}

#[test]
fn a_probe_asks_what_the_configuration_names() {
    let daemon = Daemon::start(small_site(&Configuration::new(vec![demo()])));
    let site = &daemon.site;
    // Whatever else is wrong, and without a look at any secret: this is run every few seconds.
    let configuration = site.path().join("xksd.toml");
    let ops = format!("[ops]\nlisten = \"{}\"\n\n[nonsense]\nx = 1\n", daemon.ops);
    fs::write(&configuration, ops).unwrap();
    for question in ["livez", "readyz"] {
        let answer = probe(site, &[question]);
        assert_eq!(answer, (Some(0), "ok\n".to_owned(), String::new()), "{question}");
    }

    fs::write(configuration, "[ops]\nlisten = \"localhost\"\n").unwrap();
    let (code, stdout, stderr) = probe(site, &["livez"]);
    assert_eq!((code, stdout.as_str()), (Some(78), ""));
    assert!(stderr.contains("ops.listen"), "{stderr}");
    assert!(!stderr.contains("server"), "only what was asked for: {stderr}");
}

#[test]
fn a_daemon_that_leaves_lives_and_is_not_ready() {
    let mut configuration = Configuration::new(vec![demo()]);
    configuration.drain.insert("delay", text("10m"));
    let daemon = Daemon::start(small_site(&configuration));
    let address = daemon.ops.to_string();
    let ask = |question| probe(&daemon.site, &[question, "--address", &address]);
    daemon.signal("TERM");
    let expected = (Some(1), String::new(), "error: /readyz: 503 leaving\n".to_owned());
    poll(|| ask("readyz") == expected, || format!("{:?}", ask("readyz")));
    assert_eq!(ask("livez").0, Some(0));
}

#[test]
fn where_nothing_answers_a_probe_says_so() {
    let site = small_site(&Configuration::new(vec![demo()]));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // Another program's port.
    let stranger = std::thread::spawn(move || {
        use std::io::Write as _;
        let (mut client, _) = listener.accept().unwrap();
        client.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
        client.write_all(b"220 mail.example.com ESMTP\r\n").unwrap();
    });
    let (code, _, stderr) = probe(&site, &["livez", "--address", &address.to_string()]);
    stranger.join().unwrap();
    assert_eq!(code, Some(69), "{stderr}");
    // Closed now, with the thread.
    let (code, stdout, stderr) = probe(&site, &["readyz", "--address", &address.to_string()]);
    assert_eq!((code, stdout.as_str()), (Some(69), ""));
    assert!(stderr.starts_with(&format!("error: no xksd answers at {address}: ")), "{stderr}");
}
