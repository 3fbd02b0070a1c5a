//! A Debian package's life in a Debian of its own, and an RPM package's there as far as RPM goes.
//! `lifecycle.sh` is what happens inside.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::{build, has, output, run, source};

/// What `tests/deploy/root.sh` has made, if it could.
fn clean_root(what: &str) -> Option<PathBuf> {
    let directory = std::env::var_os("PACKAGES_DIRECTORY").map(PathBuf::from);
    let made = directory.filter(|directory| directory.join("done").exists());
    if made.is_none() {
        support::not_run(&format!("{what}: there is no Debian to install it in"));
    }
    made.map(|directory| directory.join("root"))
}

/// What to put before a command to run it as root, which `root.sh` could do, too.
fn as_root(program: &str) -> Command {
    if rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.args(["--non-interactive", program]);
    command
}

/// A copy of the clean root, for one test.
struct Root(TempDir);

impl Root {
    fn copy(of: &Path) -> Self {
        let directory = tempfile::tempdir().unwrap();
        run(as_root("cp").args(["--archive", "--reflink=auto"]).arg(of).arg(directory.path()));
        Self(directory)
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("root")
    }

    /// Copies a file into its `/root`, and gives its path inside.
    fn bring(&self, file: &Path) -> OsString {
        run(as_root("cp").arg(file).arg(self.path().join("root")));
        Path::new("/root").join(file.file_name().unwrap()).into_os_string()
    }

    /// A command inside, with processes and a network of its own: nothing of it is left afterwards, and
    /// its ports are nobody else's.
    fn command(&self, program: impl Into<OsString>) -> Command {
        let mut command = as_root("unshare");
        command.args(["--mount", "--pid", "--net", "--ipc", "--fork", "--kill-child"]);
        command.arg(format!("--mount-proc={}", self.path().join("proc").display()));
        command.args(["sh", "-c", "ip link set lo up && exec chroot \"$0\" \"$@\""]);
        command.arg(self.path()).arg(program.into());
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C.UTF-8");
        command
    }
}

/// What belongs to root is not removed with the directory otherwise.
impl Drop for Root {
    fn drop(&mut self) {
        let _ = as_root("rm").args(["-rf", "--one-file-system"]).arg(self.path()).status();
    }
}

/// Whether this machine lets root make namespaces; a container may not.
fn can_isolate(what: &str) -> bool {
    let tried = as_root("unshare").args(["--mount", "--pid", "--net", "--fork", "true"]).output();
    let can = tried.is_ok_and(|output| output.status.success());
    if !can {
        support::not_run(&format!("{what}: root may make no namespaces here"));
    }
    can
}

#[test]
fn a_debian_package_is_installed_started_upgraded_removed_and_purged() {
    let what = "the life of the Debian package";
    let Some(clean) = clean_root(what) else { return };
    if !has(&["dpkg-deb", "dpkg-shlibdeps", "ip"], what) || !can_isolate(what) {
        return;
    }
    let packages = tempfile::tempdir().unwrap();
    let root = Root::copy(&clean);
    let script = root.bring(&source("tests/deploy/packages/lifecycle.sh"));
    let first = root.bring(&build("deb", packages.path(), "0.1.0"));
    let second = root.bring(&build("deb", packages.path(), "9.0.0"));
    let said = run(root.command(script).args([first, second]));
    assert!(said.contains("requests answered during the upgrade"), "{said}");
}

/// A container that systemd runs in; it goes with this value, and its image does.
struct Container(String);

impl Container {
    /// Nothing, where it can't be made.
    fn start(clean: &Path, packages: &Path) -> Option<Self> {
        let name = format!("xksd-packages-{}", std::process::id());
        let mut archive = as_root("tar");
        // Device nodes are Docker's own.
        archive.args(["--create", "--exclude=./dev", "--directory"]).arg(clean).arg(".");
        let mut archive = archive.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let archived = archive.stdout.take().unwrap();
        run(Command::new("docker").args(["import", "-", &name]).stdin(archived));
        assert!(archive.wait().unwrap().success());

        let container = Self(name);
        let mut command = Command::new("docker");
        command.args(["run", "--detach", "--rm", "--network=none", "--name", &container.0]);
        // What systemd needs to confine a service, and what the unit asks for.
        for capability in ["SYS_ADMIN", "SYS_PTRACE", "NET_ADMIN", "IPC_LOCK"] {
            command.arg(format!("--cap-add={capability}"));
        }
        command.arg("--cgroupns=private");
        command.args(["--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined"]);
        command.args(["--tmpfs=/run", "--tmpfs=/tmp:exec", "--env=container=docker"]);
        command.arg("--volume=/sys/fs/cgroup:/sys/fs/cgroup:ro");
        command.arg(format!("--volume={}:/packages:ro", packages.display()));
        command.args([&container.0, "/lib/systemd/systemd"]);
        output(&mut command).status.success().then_some(container)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.args(["exec", &self.0]).args(arguments);
        command
    }

    /// Whether systemd has come up in it.
    fn is_up(&self) -> bool {
        // `--wait` ends when the start is over.
        let mut asked =
            self.command(&["timeout", "60", "systemctl", "is-system-running", "--wait"]);
        let is_up = || {
            let state = output(&mut asked).stdout;
            state.starts_with(b"running") || state.starts_with(b"degraded")
        };
        // Before it has opened its socket, asking fails at once.
        std::iter::repeat_with(is_up).take(100).any(|is_up| is_up)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rm", "--force", &self.0]).output();
        let _ = Command::new("docker").args(["rmi", &self.0]).output();
    }
}

/// As before, but it is systemd that starts and restarts it: no connection is refused meanwhile.
#[test]
fn systemd_restarts_an_upgraded_package_and_refuses_no_connection() {
    let what = "the Debian package under systemd";
    let Some(clean) = clean_root(what) else { return };
    if !has(&["dpkg-deb", "dpkg-shlibdeps", "docker"], what) {
        return;
    }
    if !output(Command::new("docker").arg("info")).status.success() {
        support::not_run(&format!("{what}: Docker's engine does not answer"));
        return;
    }
    let packages = tempfile::tempdir().unwrap();
    build("deb", packages.path(), "0.1.0");
    build("deb", packages.path(), "9.0.0");
    let script = packages.path().join("lifecycle.sh");
    std::fs::copy(source("tests/deploy/packages/lifecycle.sh"), script).unwrap();
    let container = Container::start(&clean, packages.path());
    let Some(container) = container.filter(Container::is_up) else {
        support::not_run(&format!("{what}: systemd does not run in a container here"));
        return;
    };
    let architecture = run(Command::new("dpkg").arg("--print-architecture"));
    let package = |version| format!("/packages/xksd_{version}-1_{}.deb", architecture.trim_end());
    let script = ["/packages/lifecycle.sh", &package("0.1.0"), &package("9.0.0")];
    let said = run(&mut container.command(&script));
    assert!(said.contains("requests answered during the upgrade"), "{said}");
}

/// Debian's rpm installs it into a Debian: the scriptlets run, dependencies are not looked at.
#[test]
fn an_rpm_package_is_installed_and_removed() {
    let what = "the RPM package";
    let Some(clean) = clean_root(what) else { return };
    if !has(&["rpmbuild", "rpm", "ip"], what) || !can_isolate(what) {
        return;
    }
    let packages = tempfile::tempdir().unwrap();
    let package = build("rpm", packages.path(), "0.1.0");
    let newer = build("rpm", packages.path(), "9.0.0");
    let root = Root::copy(&clean);
    let rpm = |arguments: &[&str]| {
        let mut command = as_root("rpm");
        command.arg("--root").arg(root.path()).args(["--dbpath", "/var/lib/rpm"]);
        run(command.args(arguments))
    };
    let inside = |script: &str| run(root.command("sh").args(["-ec", script]));

    rpm(&["--install", "--nodeps", package.to_str().unwrap()]);
    assert_eq!(
        inside("xksd --version && getent passwd xksd | cut -d : -f 7"),
        "xksd 0.1.0\n/usr/sbin/nologin\n".replace("0.1.0", env!("CARGO_PKG_VERSION"))
    );
    inside(
        "echo mine >>/etc/xksd/xksd.toml.example && touch /etc/xksd/xksd.toml /var/lib/xksd.kept",
    );
    rpm(&["--upgrade", "--nodeps", newer.to_str().unwrap()]);
    let modes = "stat --format '%a %U' /etc/xksd /etc/xksd/credentials";
    assert_eq!(inside(modes), "755 root\n700 root\n");
    // The operator's changes stay, as `noreplace` says.
    assert_eq!(inside("tail --lines 1 /etc/xksd/xksd.toml.example"), "mine\n");
    assert_eq!(rpm(&["--query", "--queryformat", "%{VERSION}", "xksd"]), "9.0.0");
    rpm(&["--erase", "xksd"]);
    assert_eq!(
        inside("ls /etc/xksd; ! test -e /usr/bin/xksd"),
        "xksd.toml\nxksd.toml.example.rpmsave\n"
    );
}
