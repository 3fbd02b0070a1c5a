//! That Helm takes the chart, and Kubernetes what it makes.

use super::{Set, helms, render, run, text, value_sets};

#[test]
fn helm_lints_the_chart() {
    for helm in helms() {
        for set in value_sets() {
            let values = format!("ci/{set}.yaml");
            let output = run(helm, &["lint", "--strict", ".", "--values", &values]);
            assert!(output.status.success(), "{set}: {}", text(&output));
        }
    }
}

#[test]
fn every_helm_makes_the_same_of_it() {
    let Some((first, others)) = helms().split_first() else { return };
    for set in value_sets() {
        let manifests = render(first, &set, &[]);
        for other in others {
            assert_eq!(render(other, &set, &[]), manifests, "{set}: {}", other.display());
        }
    }
}

#[test]
fn manifests_hold_to_the_schemas_of_kubernetes() {
    for Set { name, faults, unknown, .. } in Set::all() {
        // The sleep before SIGTERM is newer than the rest; values.yaml says so.
        let is_sleep = |fault: &&String| fault.starts_with("1.27: ") && fault.contains("'sleep'");
        let wrong: Vec<_> = faults.iter().filter(|fault| !is_sleep(fault)).collect();
        assert!(wrong.is_empty(), "{name}: {wrong:#?}");
        let of_the_operator = ["PrometheusRule", "ServiceMonitor"];
        assert!(unknown.iter().all(|kind| of_the_operator.contains(&kind.as_str())), "{name}");
    }
    let sleep = Set::named("everything").map(|set| set.faults.len());
    assert!(matches!(sleep, None | Some(1)), "preStopSleep is checked by no schema");
}

/// The schemas are looked into: what is wrong is found, and in which version.
#[test]
fn a_manifest_that_is_wrong_is_found() {
    let wrong =
        "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec:\n  ports: [{port: http}]\n";
    for set in Set::of(&[("wrong".to_owned(), wrong.to_owned())]) {
        assert_eq!(set.faults.len(), super::VERSIONS.len(), "{:?}", set.faults);
        assert!(set.faults[0].contains("spec.ports.0.port"), "{:?}", set.faults);
    }
}

/// What is shown after an installation. Helm 3 wants a cluster before it shows it.
#[test]
fn notes_say_what_applies() {
    let notes = |helm, set: &str, more: &[&str]| {
        let values = format!("ci/{set}.yaml");
        let install = ["install", "test", ".", "--dry-run=client", "--values", &values];
        let output = run(helm, &[&install[..], more].concat());
        let said = text(&output);
        let wants_cluster = said.contains("cluster unreachable");
        assert!(output.status.success() || wants_cluster, "{set}: {said}");
        Some(said.split_once("NOTES:")?.1.to_owned())
    };
    let helms = helms();
    if helms.is_empty() {
        return;
    }
    let Some(helm) = helms.iter().find(|helm| notes(helm, "minimal", &[]).is_some()) else {
        return support::not_run("the notes of the Helm chart: there is no Helm 4");
    };
    let notes = |set, more: &[&str]| notes(helm, set, more).expect("it can");
    let minimal = notes("minimal", &[]);
    assert!(minimal.contains("port-forward service/test-xksd 8443:443"), "{minimal}");
    assert!(!minimal.contains("SoftHSM2") && !minimal.contains("initState"), "{minimal}");
    let softhsm = notes("softhsm", &["--set", "softhsm.persistence.enabled=false"]);
    assert!(softhsm.contains("which end with the pod"), "{softhsm}");
    let everything = notes("everything", &[]);
    assert!(everything.contains("statefulset/keys-for-kms"), "{everything}");
    assert!(everything.contains("persistence.initState is true"), "{everything}");
    let never = notes("minimal", &["--set", "reloadOnChange=never"]);
    assert!(never.contains("`xksd reload`"), "{never}");
}
