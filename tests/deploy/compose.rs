//! `deploy/compose`: several xksd behind HAProxy, one of which is lost while it is asked.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use serde_json::Value;
use support::daemon::poll;
use support::not_run;

use crate::engine::{Images, copy, docker, run, unique};

/// Seconds that a command may take; the longest is a run of bench.
const PATIENCE: &str = "300";

/// Whose loss is tried.
const VICTIM: &str = "xksd-1";

/// How an instance is lost, and comes back.
#[derive(Debug, Clone, Copy)]
enum Strike {
    /// SIGKILL to all of the container.
    Kill,
    /// All of it stands still, with its connections open.
    Pause,
    /// It goes on, and no packet reaches it.
    CutOff,
}

/// How much is asked meanwhile, and how patient clients are.
#[derive(Debug, Clone, Copy)]
struct Load {
    rate: u32,
    seconds: u32,
    clients: u32,
    timeout: &'static str,
}

/// For every run of the tests, on whatever machine.
const SHORT: Load = Load { rate: 30, seconds: 12, clients: 12, timeout: "1" };

/// That of `make soak`. KMS waits 250 ms.
const LONG: Load = Load { rate: 1800, seconds: 30, clients: 256, timeout: "0.25" };

/// A project of Compose, which is taken down when dropped.
struct Project {
    name: String,
    client: Vec<&'static str>,
    instances: usize,
    directory: tempfile::TempDir,
    images: Arc<Images>,
}

impl Project {
    /// `None`, which is counted, where there is nothing to run it with.
    fn up(instances: usize) -> Option<Self> {
        let images = Images::shared()?;
        let clients = [vec!["docker", "compose"], vec!["docker-compose"]];
        let works = |client: &Vec<&'static str>| {
            let output = Command::new(client[0]).args(&client[1..]).arg("version").output();
            output.is_ok_and(|output| output.status.success())
        };
        let Some(client) = clients.into_iter().find(works) else {
            not_run("deploy/compose: there is neither `docker compose` nor docker-compose");
            return None;
        };
        let directory = tempfile::tempdir().unwrap();
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
        for part in ["compose", "monitoring"] {
            if deploy.join(part).exists() {
                copy(&deploy.join(part), &directory.path().join(part));
            }
        }
        let project = Self { name: unique(), client, instances, directory, images };
        project.compose(&["up", "--detach"]);
        let is_ready = |service: &String| {
            let id = project.container(service);
            run(&["exec", &id, "/usr/bin/xksd", "probe", "readyz"]).status.success()
        };
        let services = project.services();
        poll(|| services.iter().all(is_ready), || project.logged("xksd-1"));
        poll(
            || services.iter().all(|service| project.is_up(service)),
            || project.logged("haproxy"),
        );
        Some(project)
    }

    fn services(&self) -> Vec<String> {
        (1..=self.instances).map(|number| format!("xksd-{number}")).collect()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let images = &self.images;
        let mut command = Command::new("timeout");
        command.arg(PATIENCE).args(&self.client).args(["--project-name", &self.name]);
        command.arg("--file").arg(self.directory.path().join("compose/compose.yaml"));
        command.args(arguments).env("FLEET_SIZE", self.instances.to_string());
        // Whatever the environment of the tests has.
        command.env("COMPOSE_PROFILES", if self.instances == 3 { "three" } else { "" });
        // Ports that are free, and images that are here.
        command.envs([("KMS_PORT", "0"), ("PROMETHEUS_PORT", "0")]);
        command.env("SOFTHSM_IMAGE", images.softhsm()).env("HAPROXY_IMAGE", images.debian());
        command.env("PROMETHEUS_IMAGE", images.debian());
        command.output().unwrap()
    }

    #[track_caller]
    fn compose(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {stderr}");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    fn container(&self, service: &str) -> String {
        self.compose(&["ps", "--quiet", "--all", service])
    }

    fn logged(&self, service: &str) -> String {
        let output = run(&["logs", &self.container(service)]);
        [output.stdout, output.stderr]
            .map(|text| String::from_utf8_lossy(&text).into_owned())
            .concat()
    }

    /// Whether HAProxy sends connections to an instance, by what it said of it last.
    fn is_up(&self, service: &str) -> bool {
        let server = format!("Server xksd/{service} ");
        // What it says on standard error as well would not be in order.
        let log = docker(&["logs", &self.container("haproxy")]);
        let mut states = log.lines().rev().filter(|line| line.starts_with(&server));
        states
            .find(|line| line.contains(" is UP") || line.contains("DOWN"))
            .is_some_and(|line| line.contains(" is UP"))
    }

    /// How many requests an instance has answered since its container was made.
    fn requests(&self, service: &str) -> usize {
        self.logged(service).matches("\"message\":\"request\"").count()
    }

    /// Signed requests through HAProxy, at a fixed rate or one after the other. It wants a first answer to
    /// begin with, for which SoftHSM2 may be too late on a busy machine.
    fn bench(&self, arguments: &[&str]) -> Report {
        let fixed =
            ["run", "--rm", "-T", "client", "bench", "--operation=encrypt-cdiv=1,decrypt=1"];
        let mut report = None;
        let begun = || {
            let output = self.run(&[&fixed, arguments].concat());
            let stdout = String::from_utf8_lossy(&output.stdout);
            let line = stdout.lines().find(|line| line.starts_with('{'));
            report = line.map(|line| Report(serde_json::from_str(line).expect("it is JSON")));
            report.is_some()
        };
        poll(begun, || self.logged("haproxy"));
        report.expect("that was waited for")
    }

    fn strike(&self, strike: Strike) {
        let (id, network) = (self.container(VICTIM), format!("{}_default", self.name));
        docker(&match strike {
            Strike::Kill => vec!["kill", &id],
            Strike::Pause => vec!["pause", &id],
            Strike::CutOff => vec!["network", "disconnect", &network, &id],
        });
    }

    fn mend(&self, strike: Strike) {
        let (id, network) = (self.container(VICTIM), format!("{}_default", self.name));
        docker(&match strike {
            Strike::Kill => vec!["start", &id],
            Strike::Pause => vec!["unpause", &id],
            Strike::CutOff => vec!["network", "connect", "--alias", VICTIM, &network, &id],
        });
    }

    /// An instance is lost under load, is seen to be down, and comes back; then all is as before.
    fn lose_one(&self, strike: Strike, load: Load) -> Report {
        let rate = format!("--rate={}", load.rate);
        let seconds = format!("--duration={}", load.seconds);
        let clients = format!("--concurrency={}", load.clients);
        let timeout = format!("--timeout={}", load.timeout);
        let before = self.requests(VICTIM);
        let report = std::thread::scope(|scope| {
            let bench = scope.spawn(|| self.bench(&[&rate, &seconds, &clients, &timeout]));
            // Two seconds' worth: the load is on, and counts.
            let enough = before + 2 * load.rate as usize / self.instances;
            poll(|| self.requests(VICTIM) >= enough, || self.logged("haproxy"));
            self.strike(strike);
            poll(|| !self.is_up(VICTIM), || self.logged("haproxy"));
            self.mend(strike);
            poll(|| self.is_up(VICTIM), || self.logged("haproxy"));
            bench.join().unwrap_or_else(|why| std::panic::resume_unwind(why))
        });
        report.assert_nothing_was_wrong();
        assert!(report.count("ok") > report.count("requests") / 2, "{strike:?}: {report}");

        let before = self.requests(VICTIM);
        let all_is_well = || {
            // One connection for each instance: no more than a busy machine can do in time.
            let after = self.bench(&["--requests=60", "--warmup=0", "--concurrency=3"]);
            after.assert_nothing_was_wrong();
            after.count("ok") == 60 && self.requests(VICTIM) > before
        };
        poll(all_is_well, || self.logged("haproxy"));
        report
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        // One that a failed test has left paused can't be stopped.
        if let Some(id) =
            String::from_utf8_lossy(&self.run(&["ps", "--quiet", VICTIM]).stdout).lines().next()
        {
            run(&["unpause", id]);
        }
        self.run(&["down", "--volumes", "--timeout", "1", "--remove-orphans"]);
    }
}

/// What bench has seen.
struct Report(Value);

impl Report {
    fn count(&self, member: &str) -> u64 {
        self.0[member].as_u64().expect("it is a number")
    }

    fn errors(&self) -> BTreeMap<String, u64> {
        let errors = self.0["errors"].as_object().expect("it is an object").iter();
        errors
            .map(|(name, count)| (name.clone(), count.as_u64().expect("it is a number")))
            .collect()
    }

    /// Requests may fail, in ways that say that they did; no answer may be another than it should.
    fn assert_nothing_was_wrong(&self) {
        const HONEST: [&str; 7] = [
            "(cannot connect)",
            "(connection failed)",
            "(not sent)",
            "(timeout)",
            "DependencyTimeoutException",
            "InternalException",
            "ThrottlingException",
        ];
        let errors = self.errors();
        assert!(errors.keys().all(|name| HONEST.contains(&name.as_str())), "{self}");
        assert_eq!(self.count("ok") + errors.values().sum::<u64>(), self.count("requests"));
    }
}

/// A row of the table in docs/reliability.md.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (all, ok) = (self.count("requests"), self.count("ok"));
        let share = 100.0 * (all - ok) as f64 / all.max(1) as f64;
        let errors: Vec<String> =
            self.errors().iter().map(|(name, count)| format!("{count} {name}")).collect();
        let time = |name| self.0["latency_us"][name].as_f64().unwrap_or(f64::NAN) / 1000.0;
        let errors = errors.join(", ");
        write!(f, "{all} | {} ({share:.2}%) | {errors} | ", all - ok)?;
        write!(f, "{:.1} ms / {:.1} ms / {:.0} ms", time("p50"), time("p99"), time("max"))
    }
}

#[test]
fn one_of_two_that_prometheus_watches_may_be_killed() {
    let Some(project) = Project::up(2) else { return };
    prometheus_sees_every_instance_and_has_the_rules(&project);
    project.lose_one(Strike::Kill, SHORT);
}

#[test]
fn one_of_three_may_be_lost_in_any_way() {
    let Some(project) = Project::up(3) else { return };
    for strike in [Strike::Kill, Strike::Pause, Strike::CutOff] {
        project.lose_one(strike, SHORT);
    }
}

fn prometheus_sees_every_instance_and_has_the_rules(project: &Project) {
    let ask = |path: &str| -> Value {
        let url = format!("http://localhost:9090/api/v1/{path}");
        let id = project.container("prometheus");
        let answer = run(&["exec", &id, "curl", "-sS", "--max-time", "10", &url]);
        serde_json::from_slice(&answer.stdout).unwrap_or_default()
    };
    let up = || {
        let targets = ask("targets?state=active")["data"]["activeTargets"].clone();
        let targets = targets.as_array().cloned().unwrap_or_default();
        targets.iter().filter(|target| target["health"] == "up").count()
    };
    poll(|| up() == 2, || project.logged("prometheus") + &ask("targets").to_string());
    let rules = project.directory.path().join("monitoring/prometheus");
    let rules = std::fs::read_dir(rules).map(|files| {
        let files = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        files
            .filter(|file| file.starts_with("xksd.") && file.ends_with(".yml"))
            .map(|file| format!("/etc/xksd/rules/{file}"))
            .collect::<std::collections::BTreeSet<_>>()
    });
    let groups = ask("rules")["data"]["groups"].as_array().cloned().unwrap_or_default();
    let loaded = groups.iter().map(|group| group["file"].as_str().unwrap().to_owned()).collect();
    assert_eq!(rules.unwrap_or_default(), loaded);
}

#[test]
#[ignore = "1,800 requests a second for a minute and a half: make soak"]
#[expect(clippy::print_stdout, reason = "its table is what it is for")]
fn figures() {
    let Some(project) = Project::up(3) else { return };
    println!("| one of three xksd is | requests | failed | by error | p50 / p99 / max |");
    println!("|---|---|---|---|---|");
    for (what, strike) in
        [("killed", Strike::Kill), ("paused", Strike::Pause), ("cut off", Strike::CutOff)]
    {
        println!("| {what} | {} |", project.lose_one(strike, LONG));
    }
}
