//! P-45: what must not be seen is seen nowhere, at the most talkative level of the log.

use serde_json::Value;
use support::caller::Caller;
use support::collector::Collector;
use support::daemon::Daemon;
use support::process::Process;
use support::request::{bare_body, base64, decrypt_body, encrypt_body, hex, unbase64};
use support::site::{Configuration, Credential, text};
use support::token::PIN;

use crate::http2::{Http2, request};
use crate::world::{demo, small_site};

/// In no log by chance.
const PLAINTEXT: &[u8] = b"canary-plaintext-0123456789-that-sings";

/// The forms in which somebody might let slip a secret.
fn forms(secret: &[u8]) -> Vec<String> {
    // A part of it is enough, at each of the three ways that Base64 may fall.
    let part = &secret[3..secret.len() - 3];
    let mut forms = vec![
        String::from_utf8_lossy(part).into_owned(),
        hex(part),
        hex(part).to_uppercase(),
        part.iter().map(u8::to_string).collect::<Vec<_>>().join(", "),
        part.iter().map(u8::to_string).collect::<Vec<_>>().join(","),
    ];
    for skip in 0..3 {
        let aligned = &secret[skip..secret.len() - (secret.len() - skip) % 3];
        forms.push(base64(&aligned[3..aligned.len() - 3]));
    }
    forms
}

fn assert_silent(where_: &str, text: &str, secrets: &[(&str, Vec<u8>)]) {
    for (name, secret) in secrets {
        for form in forms(secret) {
            assert!(!text.contains(&form), "{name} in {where_}, as `{form}`");
        }
    }
}

/// Calls everything, well and badly; gives all answers but Decrypt's good ones.
fn exercise(kms: &Caller, marker: &[u8]) -> String {
    let mut answers = String::new();
    let mut call = |rest: &str, body: &Value| {
        let answer = kms.call(rest, body);
        answers.push_str(&answer.text());
        answer
    };
    let mut encrypt = encrypt_body(marker, None);
    let sealed = call("keys/demo-key/encrypt", &encrypt).json();
    encrypt["ciphertextDataIntegrityValueAlgorithm"] = "SHA_256".into();
    assert_eq!(call("keys/demo-key/encrypt", &encrypt).status, 200);
    let decrypt = decrypt_body(&sealed, None);
    let opened = kms.accepted("keys/demo-key/decrypt", &decrypt);
    assert_eq!(unbase64(&opened["plaintext"]), marker);
    // Refusals of bodies with the marker in every place where a message might quote it.
    let text = String::from_utf8_lossy(marker).into_owned();
    for (member, value) in [
        ("encryptionAlgorithm", text.clone()),
        ("ciphertextDataIntegrityValueAlgorithm", text.clone()),
        ("additionalAuthenticatedData", format!("{text}!")),
        ("plaintext", format!("{}=", base64(marker))),
        ("plaintext", text.clone()),
        ("plaintext", base64(&marker.repeat(300))),
    ] {
        let mut bad = encrypt_body(marker, None);
        bad[member] = value.into();
        assert_ne!(call("keys/demo-key/encrypt", &bad).status, 200, "{member}");
    }
    for rest in [
        "keys/demo-none/encrypt",
        "keys/demo-key/decrypt",
        "keys/demo-key/metadata",
        "health",
        "nowhere",
    ] {
        call(rest, &encrypt);
    }
    let mut spoiled = kms.request("keys/demo-key/encrypt", &encrypt);
    let good = spoiled.body.clone();
    for cut in [good.len() - 1, good.len() / 2] {
        spoiled.body = good[..cut].to_vec();
        answers.push_str(&kms.send(&spoiled).text());
    }
    let stranger = Caller { credential: Credential::of('Z'), ..kms.clone() };
    answers.push_str(&stranger.call("keys/demo-key/encrypt", &encrypt).text());
    let mut connection = kms.connect();
    connection.send(&[b"POST ", marker, b" HTTP/9.9\r\n\r\n"].concat());
    answers.push_str(&connection.receive().text());
    answers
}

/// The same in short over HTTP/2, whose library has a log of its own.
#[tokio::main(flavor = "current_thread")]
async fn exercise_http2(kms: &Caller, marker: &[u8]) -> String {
    let connection = Http2::connect(kms).await;
    let encrypt = encrypt_body(marker, None);
    let sealed = connection.accepted(kms, "keys/demo-key/encrypt", &encrypt).await;
    let decrypt = decrypt_body(&sealed, None);
    let opened = connection.accepted(kms, "keys/demo-key/decrypt", &decrypt).await;
    assert_eq!(unbase64(&opened["plaintext"]), marker);
    let refused = connection.send(request(kms, "keys/demo-none/encrypt", &encrypt)).await.unwrap();
    format!("{sealed}{}", refused.1)
}

#[test]
fn no_secret_is_seen_anywhere() {
    for format in ["json", "text"] {
        let mut configuration = Configuration::new(vec![demo()]);
        configuration.log.insert("level", text("trace"));
        configuration.log.insert("format", text(format));
        let collector = Collector::start();
        let endpoint = format!("http://{}", collector.address);
        let variables = [("XKSD_TRACES__OTLP_ENDPOINT", endpoint.as_str())];
        let daemon = Daemon::start_with(small_site(&configuration), &variables);
        let kms = Caller::new(&daemon, &demo());
        let mut answers = exercise(&kms, PLAINTEXT);
        answers.push_str(&exercise_http2(&kms, PLAINTEXT));
        kms.accepted("health", &bare_body("KmsHealthCheck"));

        let mut secrets = vec![("the plaintext", PLAINTEXT.to_vec()), ("the PIN", PIN.into())];
        for credential in demo().credentials {
            secrets.push(("a secret access key", credential.secret.into_bytes()));
        }
        assert_silent("answers", &answers, &secrets);
        assert_silent("metrics", &daemon.metrics(), &secrets);
        let daemons = Process(daemon.pid());
        let [child] = daemons.children()[..] else { panic!("{:?}", daemons.children()) };
        for Process(pid) in [daemons, child] {
            for file in ["cmdline", "environ", "comm"] {
                let path = format!("/proc/{pid}/{file}");
                match std::fs::read(&path) {
                    Ok(bytes) => assert_silent(&path, &String::from_utf8_lossy(&bytes), &secrets),
                    // Not dumpable: not even its own user may look.
                    Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied),
                }
            }
        }
        daemon.signal("TERM");
        let (_, log) = daemon.wait_exit();
        assert!(log.contains("TRACE"), "the log is at its most talkative");
        assert_silent(&format!("the {format} log"), &log, &secrets);
        let traces = collector.bodies().concat();
        assert!(!traces.is_empty(), "there are traces");
        assert_silent("traces", &String::from_utf8_lossy(&traces), &secrets);
    }
}

/// What a core dump or a debugger could read.
#[test]
fn the_process_keeps_its_memory_to_itself() {
    let pid = crate::world::daemon().pid();
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
    let core: Vec<&str> = core.split_whitespace().collect();
    assert_eq!(core, ["0", "0", "bytes"]);
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let files: Vec<&str> = files.split_whitespace().collect();
    assert_eq!(files[0], files[1], "raised as far as it goes");
    // The kernel gives what belongs to a process that is not dumpable to root.
    let owner =
        |path: String| std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(path).unwrap());
    if owner("/proc/self".into()) == 0 {
        support::not_run("that the daemon is not dumpable: as root there is no telling");
    } else {
        assert_eq!(owner(format!("/proc/{pid}/environ")), 0);
    }
}
