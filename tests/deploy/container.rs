//! `deploy/container`: what is in the images, and that they serve as docs/containers.md says.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;

use serde_json::Value;
use support::daemon::poll;

use crate::engine::{Container, EPOCH, Images, Volume, docker, run, unique};

/// As an image should be run: see docs/containers.md.
const HARDENED: [&str; 10] = [
    "--read-only",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges:true",
    "--network=none",
    "--tmpfs=/tmp",
    "--tmpfs=/run/xksd:uid=65532,mode=0700",
    "--health-interval=1s",
    "--health-retries=1",
    "--env=XKSD_SERVER__DRAIN__DELAY=0s",
    "--env=XKSD_OPS__CONTROL_SOCKET=/run/xksd/control.sock",
];

/// The entries of an image's file system: mode, owner and date by path.
fn entries(images: &Arc<Images>, image: &str) -> BTreeMap<String, [String; 3]> {
    let container = Created::new(images, image);
    let list = format!(
        "docker export {} | tar --list --verbose --numeric-owner --full-time --utc",
        container.0
    );
    let entry = |line: &str| {
        let mut words = line.split_whitespace().map(str::to_owned);
        let mut word = || words.next().expect("a line of tar has six words at least");
        let (mode, owner, _size, date, time, path) =
            (word(), word(), word(), word(), word(), word());
        (path, [mode, owner, format!("{date} {time}")])
    };
    shell(&list).lines().map(entry).collect()
}

/// A container that was never started.
struct Created(String, #[expect(dead_code, reason = "kept, since it is made of one")] Arc<Images>);

impl Created {
    fn new(images: &Arc<Images>, image: &str) -> Self {
        Self(docker(&["create", image, "nothing"]), images.clone())
    }
}

impl Drop for Created {
    fn drop(&mut self) {
        run(&["rm", "--force", &self.0]);
    }
}

fn shell(script: &str) -> String {
    let output = Command::new("bash").args(["-euo", "pipefail", "-c", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_image_is_its_base_the_program_and_little_else() {
    let Some(images) = Images::shared() else { return };
    let base = entries(&images, &images.small());
    assert!(!base.keys().any(|path| path.ends_with("/sh")), "no shell is needed, so none is there");
    let mut added = entries(&images, &images.xksd());
    added.retain(|path, _| !base.contains_key(path));
    let expected = [
        ("etc/xksd/", "drwxr-xr-x", "0/0"),
        ("usr/bin/xksd", "-rwxr-xr-x", "0/0"),
        ("usr/share/doc/", "drwxr-xr-x", "0/0"),
        ("usr/share/doc/xksd/", "drwxr-xr-x", "0/0"),
        ("usr/share/doc/xksd/copyright", "-rw-r--r--", "0/0"),
        ("usr/share/doc/xksd/sbom.cdx.json", "-rw-r--r--", "0/0"),
        ("var/lib/xksd/", "drwx------", "65532/65532"),
    ];
    let expected = expected.map(|(path, mode, owner)| {
        (path.to_owned(), [mode.to_owned(), owner.to_owned(), EPOCH.to_owned()])
    });
    assert_eq!(added, BTreeMap::from(expected));

    let config = docker(&["inspect", "--format", "{{json .Config}}", &images.xksd()]);
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["User"], "65532:65532");
    assert_eq!(config["Entrypoint"], serde_json::json!(["/usr/bin/xksd"]));
    let check = serde_json::json!(["CMD", "/usr/bin/xksd", "probe", "livez"]);
    assert_eq!(config["Healthcheck"]["Test"], check);
}

/// Every crate of the lock file, and ourselves.
#[test]
fn the_bill_of_materials_names_every_crate() {
    let Some(images) = Images::shared() else { return };
    let container = Created::new(&images, &images.xksd());
    let path = "/usr/share/doc/xksd/sbom.cdx.json";
    let sbom = shell(&format!("docker cp {}:{path} - | tar --extract --to-stdout", container.0));
    let sbom: Value = serde_json::from_str(&sbom).unwrap();
    assert_eq!((&sbom["bomFormat"], &sbom["specVersion"]), (&"CycloneDX".into(), &"1.5".into()));
    assert_eq!(sbom["metadata"]["component"]["version"], env!("CARGO_PKG_VERSION"));
    let text = |value: &Value| value.as_str().expect("it is text").to_owned();
    let named: Vec<[String; 3]> = sbom["components"]
        .as_array()
        .unwrap()
        .iter()
        .map(|part| [&part["name"], &part["version"], &part["hashes"][0]["content"]].map(text))
        .collect();
    let lock: toml::Table =
        toml::from_str(include_str!("../../Cargo.lock")).expect("it is cargo's own");
    let locked = lock["package"].as_array().unwrap().iter();
    let locked: Vec<[String; 3]> = locked
        .filter_map(|package| package.get("checksum").map(|_| package))
        .map(|package| {
            ["name", "version", "checksum"].map(|key| package[key].as_str().unwrap().to_owned())
        })
        .collect();
    assert_eq!(named, locked);
}

#[test]
fn two_builds_have_the_same_files() {
    let Some(images) = Images::shared() else { return };
    let sum = |image: &str| {
        let container = Created::new(&images, image);
        shell(&format!("docker cp {}:/files - | sha256sum", container.0))
    };
    let again = Image(unique());
    images.build(&again.0, &["--target", "files", "--no-cache"]);
    assert_eq!(sum(&images.files()), sum(&again.0));
}

struct Image(String);

impl Drop for Image {
    fn drop(&mut self) {
        run(&["rmi", "--force", &self.0]);
    }
}

fn wait_for_health(container: &Container, health: &str) {
    let is = || container.inspect("{{.State.Health.Status}}");
    poll(|| is() == health, || format!("{}, not {health}: {}", is(), container.logged()));
}

/// Encrypts and decrypts through the loopback interface of the container.
fn ask(images: &Images, server: &Container, volume: &Volume) {
    let network = format!("--network=container:{}", server.name);
    let mount = format!("--volume={}:/srv/xks:ro", volume.0);
    let fixed = ["run", "--rm", "--read-only", "--tmpfs=/tmp", &network, &mount, &images.softhsm()];
    let bench = ["bench", "--requests=20", "--operation=encrypt-cdiv=1,decrypt=1", "--warmup=0"];
    // On a busy machine SoftHSM2 may be too late at first.
    let asked = || run(&[&fixed[..], &bench].concat()).status.success();
    poll(asked, || server.logged());
}

fn stop(container: &Container) {
    docker(&["stop", "--time=60", &container.name]);
    assert_eq!(container.inspect("{{.State.ExitCode}}"), "0", "{}", container.logged());
}

fn is_ready(container: &Container) -> bool {
    run(&["exec", &container.name, "/usr/bin/xksd", "probe", "readyz"]).status.success()
}

/// First the image with SoftHSM2, which makes all that is needed; then the other on the same volume,
/// with a library that is mounted, as that of a vendor would be.
#[test]
fn both_images_serve_as_nobody_from_a_file_system_that_is_read_only() {
    let Some(images) = Images::shared() else { return };
    let (volume, vendor) = (Volume::new(), Volume::new());
    let mount = format!("--volume={}:/srv/xks", volume.0);
    let softhsm = images.softhsm();
    let first = Container::start(&images, &[&HARDENED[..], &[&mount, &softhsm]].concat());
    wait_for_health(&first, "healthy");
    poll(|| is_ready(&first), || first.logged());
    ask(&images, &first, &volume);
    stop(&first);
    // The same container again, on what it has made.
    docker(&["start", &first.name]);
    poll(|| is_ready(&first), || first.logged());
    docker(&["exec", &first.name, "/usr/bin/xksd", "status", "--socket", "/run/xksd/control.sock"]);
    stop(&first);

    // SoftHSM2 and what it needs besides the C library, out of a Debian.
    let library = "/usr/lib/softhsm/libsofthsm2.so";
    let copy = format!(
        "cp {library} $(ldd {library} | sed -n 's/.* => \\(.*\\) (.*/\\1/p' | \
        grep -v -E '/lib(c|m|gcc_s|stdc[+][+])[.]so') /opt/vendor"
    );
    let at = format!("--volume={}:/opt/vendor", vendor.0);
    docker(&["run", "--rm", "--network=none", &at, &images.debian(), "sh", "-euc", &copy]);
    let of_vendor = [
        "--env=XKSD_CONFIG=/srv/xks/xksd.toml",
        "--env=XKSD_TOKENS__SOFTHSM__MODULE=/opt/vendor/libsofthsm2.so",
        "--env=XKSD_TOKENS__SOFTHSM__ENVIRONMENT__LD_LIBRARY_PATH=/opt/vendor",
        &mount,
        &format!("{at}:ro"),
        &images.xksd(),
    ];
    let second = Container::start(&images, &[&HARDENED[..], &of_vendor].concat());
    wait_for_health(&second, "healthy");
    poll(|| is_ready(&second), || second.logged());
    ask(&images, &second, &volume);
    let processes = docker(&["top", &second.name, "-eo", "uid,pid,args"]);
    let ours: Vec<&str> = processes.lines().filter(|line| line.contains("xksd")).collect();
    assert!(ours.len() >= 2, "daemon and library have a process each: {processes}");
    assert!(ours.iter().all(|line| line.trim().starts_with("65532 ")), "{processes}");
    assert!(!run(&["exec", &second.name, "sh", "-c", "exit 0"]).status.success());

    // What stands still is found unhealthy, and is well again when it goes on.
    docker(&["kill", "--signal=STOP", &second.name]);
    wait_for_health(&second, "unhealthy");
    docker(&["kill", "--signal=CONT", &second.name]);
    wait_for_health(&second, "healthy");
    stop(&second);
}

#[test]
fn without_a_configuration_a_container_says_so_and_ends() {
    let Some(images) = Images::shared() else { return };
    let output = run(&[&["run", "--rm"], &HARDENED[..], &[&images.xksd()]].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{stderr}");
    assert!(stderr.contains("error: /etc/xksd/xksd.toml: cannot be read"), "{stderr}");
}
