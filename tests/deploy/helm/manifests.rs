//! What manifests promise, and that they agree with each other.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Set, list, selects};

/// All containers of a pod.
fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    list(&pod["spec"]["initContainers"]).iter().chain(list(&pod["spec"]["containers"]))
}

/// What Pod Security calls restricted, and more.
#[test]
fn no_container_can_do_more_than_it_must() {
    for set in Set::all() {
        let (name, pod) = (&set.name, &set.pod()["spec"]);
        let security = &pod["securityContext"];
        assert_eq!(security["runAsNonRoot"], true, "{name}");
        assert_eq!(security["seccompProfile"], json!({"type": "RuntimeDefault"}), "{name}");
        assert!(security["fsGroup"].as_u64() > Some(0), "{name}");
        for key in ["hostNetwork", "hostPID", "hostIPC"] {
            assert_eq!(pod[key], Value::Null, "{name}");
        }
        let mut checked = 0;
        for container in containers(set.pod()) {
            let (what, security) = (&container["name"], &container["securityContext"]);
            for (key, value) in [
                ("allowPrivilegeEscalation", json!(false)),
                ("privileged", json!(false)),
                ("readOnlyRootFilesystem", json!(true)),
                ("runAsNonRoot", json!(true)),
                ("seccompProfile", json!({"type": "RuntimeDefault"})),
            ] {
                assert_eq!(security[key], value, "{name}: {what}: {key}");
            }
            assert!(security["runAsUser"].as_u64() > Some(0), "{name}: {what}");
            assert_eq!(security["capabilities"]["drop"], json!(["ALL"]), "{name}: {what}");
            let locks = name == "everything" && what == "xksd";
            let added = if locks { json!(["IPC_LOCK"]) } else { Value::Null };
            assert_eq!(security["capabilities"]["add"], added, "{name}: {what}");
            checked += 1;
        }
        assert!(checked > 0, "{name}");
    }
}

#[test]
fn no_pod_has_a_token_of_kubernetes() {
    for set in Set::all() {
        let (account, pod) = (set.only("ServiceAccount"), &set.pod()["spec"]);
        assert_eq!(account["automountServiceAccountToken"], false, "{}", set.name);
        assert_eq!(pod["automountServiceAccountToken"], false, "{}", set.name);
        assert_eq!(pod["serviceAccountName"], account["metadata"]["name"], "{}", set.name);
    }
}

#[test]
fn secrets_are_files_that_others_cannot_read() {
    for set in Set::all() {
        let name = &set.name;
        let secrets = list(&set.pod()["spec"]["volumes"]).iter();
        let secrets: Vec<_> = secrets.filter(|volume| !volume["secret"].is_null()).collect();
        assert!(secrets.len() >= 3, "{name}");
        for volume in secrets {
            assert_eq!(volume["secret"]["defaultMode"], 0o440, "{name}: {volume}");
        }
        for container in containers(set.pod()) {
            let variables = list(&container["env"]).iter();
            let from_elsewhere = variables.filter(|variable| !variable["valueFrom"].is_null());
            assert_eq!(from_elsewhere.count(), 0, "{name}");
        }
    }
}

#[test]
fn every_mount_has_its_volume() {
    for set in Set::all() {
        let names = |list: &[Value]| -> BTreeSet<String> {
            list.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
        };
        let mut volumes = names(list(&set.pod()["spec"]["volumes"]));
        for claim in list(&set.workload()["spec"]["volumeClaimTemplates"]) {
            volumes.insert(claim["metadata"]["name"].as_str().unwrap().to_owned());
        }
        let mut mounted = BTreeSet::new();
        for container in containers(set.pod()) {
            let mounts = list(&container["volumeMounts"]);
            mounted.extend(names(mounts));
            let paths: BTreeSet<_> =
                mounts.iter().map(|mount| mount["mountPath"].as_str()).collect();
            assert_eq!(paths.len(), mounts.len(), "{}: one place, two mounts", set.name);
        }
        assert_eq!(mounted, volumes, "{}", set.name);
        let claims = set.kind("PersistentVolumeClaim");
        let claims: BTreeSet<_> = claims
            .iter()
            .map(|claim| &claim["metadata"]["name"])
            .map(ToString::to_string)
            .collect();
        let claimed = list(&set.pod()["spec"]["volumes"]).iter();
        let claimed = claimed.map(|volume| &volume["persistentVolumeClaim"]["claimName"]);
        let claimed: BTreeSet<_> =
            claimed.filter(|name| !name.is_null()).map(ToString::to_string).collect();
        assert_eq!(claims, claimed, "{}", set.name);
    }
}

/// Whatever selects pods selects those of the workload; nothing else of the chart is selected by them.
#[test]
fn selectors_find_the_pods() {
    for set in Set::all() {
        let (name, workload) = (&set.name, set.workload());
        let labels = &set.pod()["metadata"]["labels"];
        let selector = &workload["spec"]["selector"]["matchLabels"];
        let in_labels = |selector: &Value| {
            selector["matchLabels"] == workload["spec"]["selector"]["matchLabels"]
        };
        assert!(selects(selector, labels), "{name}");
        assert!(in_labels(&set.only("PodDisruptionBudget")["spec"]["selector"]), "{name}");
        assert!(in_labels(&set.only("NetworkPolicy")["spec"]["podSelector"]), "{name}");
        for constraint in list(&set.pod()["spec"]["topologySpreadConstraints"]) {
            assert!(in_labels(&constraint["labelSelector"]), "{name}");
        }
        let services = set.kind("Service");
        assert_eq!(services.len(), 2, "{name}");
        for service in services {
            assert_eq!(&service["spec"]["selector"], selector, "{name}");
        }
        // Versions are in the labels, and must not be in what selects: it can't be changed.
        assert_eq!(selector.as_object().map(|selector| selector.len()), Some(2), "{name}");
    }
}

#[test]
fn the_workload_is_spread_and_protected() {
    for set in Set::all() {
        let spread = list(&set.pod()["spec"]["topologySpreadConstraints"]);
        let keys: Vec<_> = spread.iter().map(|constraint| &constraint["topologyKey"]).collect();
        assert_eq!(keys, ["topology.kubernetes.io/zone", "kubernetes.io/hostname"], "{}", set.name);
        let budget = &set.only("PodDisruptionBudget")["spec"];
        let everything = set.name == "everything";
        assert_eq!(budget["maxUnavailable"], if everything { json!("34%") } else { json!(1) });
        let zone = if everything { "DoNotSchedule" } else { "ScheduleAnyway" };
        assert_eq!(spread[0]["whenUnsatisfiable"], zone, "{}", set.name);
        // A rollout takes nobody away before another is there, but for what one pod alone can have.
        let workload = &set.workload()["spec"];
        match set.name.as_str() {
            "softhsm" => assert_eq!(workload["strategy"], json!({"type": "Recreate"})),
            "everything" => assert_eq!(workload["updateStrategy"]["type"], "RollingUpdate"),
            _ => assert_eq!(workload["strategy"]["rollingUpdate"]["maxUnavailable"], 0),
        }
    }
}

#[test]
fn the_autoscaler_scales_the_workload() {
    for set in Set::all() {
        let (workload, scalers) = (set.workload(), set.kind("HorizontalPodAutoscaler"));
        assert_eq!(scalers.len(), usize::from(set.name == "everything"), "{}", set.name);
        // Who has a number of replicas in its manifest sets the autoscaler's back at each upgrade.
        assert_eq!(scalers.is_empty(), workload["spec"]["replicas"].is_u64(), "{}", set.name);
        for scaler in scalers {
            let target = &scaler["spec"]["scaleTargetRef"];
            for key in ["apiVersion", "kind"] {
                assert_eq!(target[key], workload[key]);
            }
            assert_eq!(target["name"], workload["metadata"]["name"]);
            let size = set.configuration()["fleet"]["size"].as_integer().unwrap();
            assert_eq!(scaler["spec"]["maxReplicas"], size);
        }
        if let Some(replicas) = workload["spec"]["replicas"].as_i64() {
            assert_eq!(set.configuration()["fleet"]["size"].as_integer(), Some(replicas));
        }
    }
}

/// A port of the container, by its name.
fn port(set: &Set, name: &str) -> u64 {
    let ports = list(&set.xksd()["ports"]);
    let named = ports.iter().find(|port| port["name"] == name);
    named.unwrap_or_else(|| panic!("{}: no port {name}", set.name))["containerPort"]
        .as_u64()
        .unwrap()
}

#[test]
fn ports_are_those_that_xksd_listens_on() {
    for set in Set::all() {
        let (name, config) = (&set.name, set.configuration());
        let listens = |table: &str, key: &str| {
            let address = config[table][key].as_str().unwrap();
            let address: std::net::SocketAddr = address.parse().unwrap();
            assert!(address.ip().is_unspecified(), "{name}");
            u64::from(address.port())
        };
        assert_eq!(listens("server", "listen"), port(set, "xks"), "{name}");
        assert_eq!(listens("ops", "listen"), port(set, "health"), "{name}");
        assert_eq!(listens("ops", "metrics_listen"), port(set, "metrics"), "{name}");
        for service in set.kind("Service") {
            for exposed in list(&service["spec"]["ports"]) {
                port(set, exposed["targetPort"].as_str().unwrap());
            }
        }
        for (probe, path) in
            [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")]
        {
            assert_eq!(set.xksd()[probe]["httpGet"], json!({"path": path, "port": "health"}));
        }
        let policy = &set.only("NetworkPolicy")["spec"];
        for rule in list(&policy["ingress"]) {
            for allowed in list(&rule["ports"]) {
                port(set, allowed["port"].as_str().unwrap());
                // Health and metrics are not for strangers.
                assert!(allowed["port"] == "xks" || !list(&rule["from"]).is_empty(), "{name}");
            }
        }
    }
}

#[test]
fn a_pod_has_time_to_leave() {
    for set in Set::all() {
        let (name, config) = (&set.name, set.configuration());
        let seconds = |key: &str| {
            let value = config["server"]["drain"][key].as_str().unwrap();
            value.strip_suffix('s').unwrap().parse::<u64>().unwrap()
        };
        let tokens = config["tokens"].as_table().unwrap().len() as u64;
        let sleep = &set.xksd()["lifecycle"]["preStop"]["sleep"]["seconds"];
        let sleep = sleep.as_u64().unwrap_or(0);
        assert_eq!(sleep, if name == "everything" { 5 } else { 0 });
        // docs/operations.md: the sum of both, and seven seconds more for each token.
        let least = sleep + seconds("delay") + seconds("timeout") + 7 * tokens;
        let grace = set.pod()["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap();
        assert!(grace >= least + 15, "{name}: {grace} s for {least}");
    }
}

#[test]
fn the_load_balancer_asks_for_readiness() {
    let Some(set) = Set::named("everything") else { return };
    let services = set.kind("Service");
    let service =
        services.iter().find(|service| service["spec"]["type"] == "LoadBalancer").unwrap();
    assert_eq!(service["spec"]["loadBalancerClass"], "service.k8s.aws/nlb");
    assert_eq!(service["spec"]["ports"][0]["port"], 443);
    assert_eq!(service["spec"]["ports"][0]["protocol"], "TCP");
    let annotations = &service["metadata"]["annotations"];
    let health = port(set, "health").to_string();
    for (key, value) in [
        ("scheme", "internal"),
        ("nlb-target-type", "ip"),
        ("healthcheck-protocol", "http"),
        ("healthcheck-path", "/readyz"),
        ("healthcheck-port", &health),
        ("healthcheck-success-codes", "200"),
        ("attributes", "deletion_protection.enabled=true,load_balancing.cross_zone.enabled=true"),
        (
            "target-group-attributes",
            "deregistration_delay.timeout_seconds=120,preserve_client_ip.enabled=true",
        ),
        ("subnets", "subnet-0123456789abcdef0,subnet-0fedcba9876543210"),
        ("additional-resource-tags", "team=keys"),
    ] {
        let key = format!("service.beta.kubernetes.io/aws-load-balancer-{key}");
        assert_eq!(annotations[&key], value, "{key}");
    }
    let values = annotations.as_object().unwrap().values();
    assert!(values.into_iter().all(Value::is_string), "the controller takes strings only");
}

/// What can be reloaded is reloaded; what is read at the start only makes new pods.
#[test]
fn pods_are_replaced_for_what_only_a_start_reads() {
    let Some(helm) = super::helms().first() else { return };
    let rendered = |more: &str| {
        let set = if more.is_empty() { vec![] } else { vec!["--set", more] };
        let manifests = super::render(helm, "minimal", &set);
        Set::of(&[(more.to_owned(), manifests)]).pop()
    };
    let Some(before) = rendered("") else { return };
    for (change, is_restart) in [
        ("config.keystores.demo.prefix=other", false),
        ("config.server.deadline=100ms", false),
        ("config.tokens.hsm.label=other", false),
        ("config.log.format=text", true),
        ("config.audit.directory=/var/lib/xksd/audit", true),
    ] {
        let after = rendered(change).unwrap();
        assert_ne!(before.only("ConfigMap"), after.only("ConfigMap"), "{change}");
        assert_eq!(before.pod() != after.pod(), is_restart, "{change}");
    }
}
