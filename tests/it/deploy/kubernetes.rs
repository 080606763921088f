//! The overlays of `deploy/kubernetes`, and the sizes that they have.

use std::{fs, path::PathBuf, sync::LazyLock, time::Duration};

use lambda_policy::{
    config::{Config, Listen},
    policy::Allowed,
};
use serde_json::{Value, json};

use super::{both, deploy, listing, read};
use crate::{
    binary,
    support::{Directory, linters::Linters},
};

/// The folders that `kubectl kustomize` takes.
const OVERLAYS: [&str; 7] = [
    "base",
    "overlays/eks-irsa",
    "overlays/eks-pod-identity",
    "overlays/mtls",
    "overlays/production",
    "overlays/prometheus",
    "overlays/sidecar",
];

/// What Kubernetes has no schema of its own for.
const FOREIGN: [&str; 3] = [
    "kind Certificate with api version cert-manager.io/v1",
    "kind PrometheusRule with api version",
    "kind ServiceMonitor with api version",
];

/// How long the service takes at the most after `drain_timeout`, for the last answers.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

fn render(linters: &Linters, overlay: &str) -> String {
    linters.said("kubectl", &["kustomize", &deploy("kubernetes").join(overlay).to_string_lossy()])
}

/// An overlay's resources.
struct Overlay {
    name: &'static str,
    resources: Vec<Value>,
}

impl Overlay {
    /// Each of them, rendered once for all tests.
    fn all() -> &'static [Self] {
        static ALL: LazyLock<Vec<Overlay>> = LazyLock::new(|| {
            let linters = Linters::install();
            let overlay = |name| Overlay { name, resources: linters.documents(&render(&linters, name)) };
            OVERLAYS.into_iter().map(overlay).collect()
        });
        &ALL
    }

    fn of<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.resources.iter().filter(move |resource| resource["kind"] == kind)
    }

    fn one<'a>(&'a self, kind: &'a str) -> &'a Value {
        self.of(kind).next().unwrap_or_else(|| panic!("{} has no {kind}", self.name))
    }

    fn pod(&self) -> &Value {
        &self.one("Deployment")["spec"]["template"]
    }

    fn containers(&self) -> Vec<&Value> {
        let spec = &self.pod()["spec"];
        [&spec["initContainers"], &spec["containers"]].into_iter().filter_map(Value::as_array).flatten().collect()
    }

    fn service(&self) -> &Value {
        self.containers().into_iter().find(|container| container["name"] == "lambda-policy").unwrap()
    }

    fn policies(&self) -> &str {
        self.of("ConfigMap").find_map(|map| map["data"]["policies.yaml"].as_str()).unwrap()
    }

    fn config(&self) -> Config {
        let (_directory, file) = written(self.policies());
        Config::load(&file).unwrap_or_else(|faults| panic!("{}: {faults}", self.name))
    }
}

/// A file of policies, with the certificates that it may name beside it.
fn written(policies: &str) -> (Directory, PathBuf) {
    let directory = Directory::new();
    let key = rcgen::generate_simple_self_signed(vec!["lambda-policy".to_owned()]).unwrap();
    directory.write("tls.crt", &key.cert.pem());
    directory.write("ca.crt", &key.cert.pem());
    directory.write("tls.key", &key.signing_key.serialize_pem());
    let file = directory.write("policies.yaml", &policies.replace("/run/tls/", ""));
    (directory, file)
}

fn port(listen: &Listen) -> Option<u64> {
    match listen {
        Listen::Tcp(address) => Some(address.port().into()),
        Listen::Unix(_) => None,
    }
}

fn texts<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Whether everything that a selector asks for is among the labels.
fn selects(selector: &Value, labels: &Value) -> bool {
    selector
        .as_object()
        .is_some_and(|wanted| !wanted.is_empty() && wanted.iter().all(|(key, value)| labels[key] == *value))
}

#[test]
fn kubernetes_takes_every_overlay() {
    let linters = Linters::install();
    let (right, wrong) = (Directory::new(), Directory::new());
    let listed = fs::read_dir(deploy("kubernetes/overlays")).unwrap().count();
    assert_eq!(listed + 1, OVERLAYS.len(), "every overlay is in the list");
    for overlay in OVERLAYS {
        let (name, rendered) = (overlay.replace('/', "-") + ".yaml", render(&linters, overlay));
        right.write(&name, &rendered);
        wrong.write(&name, &rendered.replace("terminationGracePeriodSeconds", "terminationGraceSeconds"));
    }
    let validate = |files: &[PathBuf]| {
        let files = files.iter().map(|file| file.to_string_lossy());
        let args: Vec<_> = ["--strict", "--quiet"].into_iter().map(Into::into).chain(files).collect();
        let output = linters.run("kubernetes-validate", &args.iter().map(AsRef::as_ref).collect::<Vec<_>>());
        (output.status.success(), both(&output))
    };
    let (content, said) = validate(&listing(&right.0, "yaml"));
    assert!(content, "{said}");
    let strange = said.lines().find(|line| !line.trim().is_empty() && !FOREIGN.iter().any(|kind| line.contains(kind)));
    assert_eq!(strange, None);
    let (content, said) = validate(&listing(&wrong.0, "yaml"));
    assert!(!content, "a property that does not exist is found: {said}");
}

#[test]
fn a_pod_stops_in_the_time_that_it_is_given() {
    for overlay in Overlay::all() {
        let (pod, config) = (&overlay.pod()["spec"], overlay.config());
        let seconds = |value: &Value| Duration::from_secs(value.as_u64().unwrap_or_default());
        let grace = seconds(&pod["terminationGracePeriodSeconds"]);
        let before = overlay
            .containers()
            .into_iter()
            .map(|container| seconds(&container["lifecycle"]["preStop"]["sleep"]["seconds"]));
        let wanted = before.max().unwrap() + config.server.drain_delay + config.server.drain_timeout + LAST_ANSWERS;
        assert!(grace >= wanted + Duration::from_secs(5), "{}: {grace:?} is not above {wanted:?}", overlay.name);
        for policy in config.policies.named.values() {
            assert!(
                policy.timeout.get() <= config.server.drain_timeout,
                "{}: a rollout would cut {}",
                overlay.name,
                policy.name
            );
        }
    }
}

#[test]
fn ports_probes_and_figures_are_the_programs() {
    let defaults = Config::parse("policies: {}", "defaults".as_ref()).unwrap();
    let (grpc, admin) = (port(&defaults.server.listen), u64::from(defaults.admin.port()));
    for overlay in Overlay::all() {
        let (name, service, config) = (overlay.name, overlay.service(), overlay.config());
        let listens = port(&config.server.listen);
        assert!(listens.is_none_or(|_| listens == grpc) && config.admin.port() == defaults.admin.port(), "{name}");
        let port = |wanted: &str| {
            let ports = service["ports"].as_array().unwrap();
            ports.iter().find(|port| port["name"] == wanted).and_then(|port| port["containerPort"].as_u64())
        };
        assert_eq!((port("grpc"), port("admin")), (listens, Some(admin)), "{name}");

        // The kubelet's gRPC probes speak neither TLS nor Unix sockets.
        for probe in ["startupProbe", "readinessProbe"] {
            let probe = &service[probe];
            let expected = if listens.is_none() || config.server.tls.is_some() {
                (Value::Null, json!({"path": "/readyz", "port": "admin"}))
            } else {
                (json!({"port": grpc}), Value::Null)
            };
            assert_eq!((probe["grpc"].clone(), probe["httpGet"].clone()), expected, "{name}");
        }
        assert_eq!(service["livenessProbe"]["httpGet"], json!({"path": "/livez", "port": "admin"}), "{name}");
        // Without a CPU limit there would be a worker for each core of the node.
        assert!(service["resources"]["limits"]["cpu"].is_null() && config.server.workers <= 2, "{name}");

        for scaler in overlay.of("HorizontalPodAutoscaler") {
            let metrics = scaler["spec"]["metrics"].as_array().unwrap();
            let named = metrics.iter().filter_map(|metric| metric["pods"]["metric"]["name"].as_str());
            for metric in named {
                assert!(read("METRICS.md").contains(&format!("| `{metric}` | gauge |")), "{name}: {metric}");
            }
            let in_flight = metrics.iter().find_map(|metric| metric["pods"]["target"]["averageValue"].as_str());
            let half = (config.server.max_in_flight / 2).to_string();
            assert!(in_flight.is_none_or(|target| target == half), "{name}: {in_flight:?}");
        }
    }
}

#[test]
fn what_refers_to_pods_finds_them() {
    for overlay in Overlay::all() {
        let (name, labels) = (overlay.name, &overlay.pod()["metadata"]["labels"]);
        for (kind, selector) in [
            ("Deployment", "/spec/selector/matchLabels"),
            ("Service", "/spec/selector"),
            ("PodDisruptionBudget", "/spec/selector/matchLabels"),
            ("NetworkPolicy", "/spec/podSelector/matchLabels"),
        ] {
            for resource in overlay.of(kind) {
                let selector = resource.pointer(selector).unwrap_or(&Value::Null);
                assert!(selects(selector, labels), "{name}: {kind} selects {selector}");
            }
        }
        for spread in overlay.pod()["spec"]["topologySpreadConstraints"].as_array().into_iter().flatten() {
            assert!(selects(&spread["labelSelector"]["matchLabels"], labels), "{name}: {spread}");
        }
        for scaler in overlay.of("HorizontalPodAutoscaler") {
            let target = texts(scaler, "/spec/scaleTargetRef/name");
            assert_eq!(target, texts(overlay.one("Deployment"), "/metadata/name"), "{name}");
            assert!(overlay.one("Deployment")["spec"]["replicas"].is_null(), "{name}: who owns the replicas?");
        }
        for monitor in overlay.of("ServiceMonitor") {
            let found = overlay
                .of("Service")
                .filter(|service| selects(&monitor["spec"]["selector"]["matchLabels"], &service["metadata"]["labels"]));
            assert_eq!(found.count(), 1, "{name}");
            assert!(
                read("METRICS.md").contains(&format!("`GET {}`", texts(monitor, "/spec/endpoints/0/path"))),
                "{name}"
            );
        }
        assert_eq!(overlay.of("NetworkPolicy").count(), 1, "{name}: who reaches the admin port?");
        for policy in overlay.of("NetworkPolicy") {
            let dns = policy.pointer("/spec/egress/0/to/0/podSelector/matchLabels");
            assert!(dns.is_none_or(|dns| *dns == json!({"k8s-app": "kube-dns"})), "{name}");
            for way in policy["spec"]["ingress"].as_array().unwrap() {
                let admin = way["ports"].as_array().unwrap().iter().any(|port| port["port"] == "admin");
                let from = texts(way, "/from/0/namespaceSelector/matchLabels/kubernetes.io~1metadata.name");
                assert!(!admin || from == "monitoring", "{name}: the admin port asks nobody who they are");
            }
        }
        let namespace = texts(overlay.one("Namespace"), "/metadata/name");
        for resource in &overlay.resources {
            let inside = resource["kind"] == "Namespace" || resource["metadata"]["namespace"] == namespace;
            assert!(inside, "{name}: {} is in {}", resource["kind"], resource["metadata"]["namespace"]);
        }
        for certificate in overlay.of("Certificate") {
            let secret = texts(certificate, "/spec/secretName");
            let volumes = overlay.pod()["spec"]["volumes"].as_array().unwrap();
            assert!(volumes.iter().any(|volume| volume["secret"]["secretName"] == secret), "{name}");
            for service in overlay.of("Service") {
                let host = format!("{}.{namespace}.svc.cluster.local", texts(service, "/metadata/name"));
                assert!(certificate["spec"]["dnsNames"].as_array().unwrap().contains(&json!(host)), "{name}: {host}");
            }
        }
    }
}

#[test]
fn every_pod_is_restricted() {
    for overlay in Overlay::all() {
        let (name, pod) = (overlay.name, &overlay.pod()["spec"]);
        assert_eq!(pod["automountServiceAccountToken"], false, "{name}");
        let security = &pod["securityContext"];
        assert_eq!(
            (&security["runAsNonRoot"], &security["seccompProfile"]["type"]),
            (&json!(true), &json!("RuntimeDefault")),
            "{name}"
        );
        assert!(security["runAsUser"].as_u64().unwrap() > 0, "{name}");
        for container in overlay.containers() {
            let security = &container["securityContext"];
            assert_eq!(
                (
                    &security["allowPrivilegeEscalation"],
                    &security["readOnlyRootFilesystem"],
                    &security["capabilities"]["drop"]
                ),
                (&json!(false), &json!(true), &json!(["ALL"])),
                "{name}: {}",
                container["name"]
            );
            assert!(container["resources"]["limits"]["memory"].is_string(), "{name}: {}", container["name"]);
            let image = texts(container, "/image");
            assert!(
                image.contains('@')
                    || image.contains(":distroless-v")
                    || image.ends_with(concat!(":", env!("CARGO_PKG_VERSION"))),
                "{name}: {image}"
            );
            for mount in container["volumeMounts"].as_array().into_iter().flatten() {
                assert!(mount["subPath"].is_null(), "{name}: what is mounted by subPath never changes");
            }
        }
        let metadata =
            overlay.service()["env"].as_array().unwrap().iter().any(|set| set["name"] == "AWS_EC2_METADATA_DISABLED");
        assert!(metadata, "{name}: the node's role is out of reach");
    }
}

#[test]
fn the_policies_of_every_overlay_have_no_fault() {
    let check = |name: &str, text: &str| {
        let (_directory, file) = written(text);
        let output = binary::run(&["check", "--config", &file.to_string_lossy()]);
        let said = both(&output);
        assert!(output.status.success(), "{name}: {said}");
        said.lines().filter(|line| line.contains("warning")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(check("compose", &read("compose/service/policies.yaml")), Vec::<String>::new());
    for overlay in Overlay::all() {
        let (name, text) = (overlay.name, overlay.policies());
        // It is said in one place, and warned of.
        let warned = check(name, text);
        match text.contains("# PLAINTEXT:") {
            true => assert!(warned.len() == 1 && warned[0].contains("without TLS"), "{name}: {warned:?}"),
            false => assert_eq!(warned, Vec::<String>::new(), "{name}"),
        }
    }
}

#[test]
fn callers_are_named_wherever_they_can_be_known() {
    for overlay in Overlay::all() {
        let (name, config, pod) = (overlay.name, overlay.config(), &overlay.pod()["spec"]["securityContext"]);
        let plaintext = overlay.policies().contains("# PLAINTEXT:");
        for policy in config.policies.named.values() {
            assert_eq!(matches!(policy.callers, Allowed::Anyone), plaintext, "{name}: {}", policy.name);
        }
        if port(&config.server.listen).is_none() {
            // The directory of the socket is the group's, and so is the socket.
            assert_eq!((&pod["runAsGroup"], config.server.socket_mode), (&pod["fsGroup"], 0o660), "{name}");
            for container in overlay.containers() {
                let security = &container["securityContext"];
                assert_eq!((&security["runAsUser"], &security["runAsGroup"]), (&Value::Null, &Value::Null), "{name}");
            }
            assert!(overlay.policies().contains(&format!("users: ['{}']", pod["runAsUser"])), "{name}");
        }
    }
}

#[test]
fn the_sizing_says_what_its_scripts_compute() {
    let linters = Linters::install();
    for script in ["deploy/sizing/sizing.py", "deploy/sizing/simulate.py"] {
        linters.said("python", &[script]);
    }
    // And it sizes what the manifests have.
    let sizing = |expression: &str| -> Value {
        let script = "import json, sys; sys.path.insert(0, 'deploy/sizing'); import sizing; json.dump(";
        let script = format!("{script}{expression}, sys.stdout)");
        serde_json::from_str(&linters.said("python", &["-c", &script])).unwrap()
    };
    let figures = sizing(
        "[sizing.MAX_IN_FLIGHT, sizing.MAX_MIB, sizing.CORES_A_POD, sizing.LIMIT_MIB, sizing.LEAST_PODS, \
         round(sizing.USED * 100)]",
    );
    let base = Overlay::all().iter().find(|overlay| overlay.name == "base").unwrap();
    let (resources, scaler) = (&base.service()["resources"], &base.one("HorizontalPodAutoscaler")["spec"]);
    let number = |text: &Value, unit: &str| text.as_str().unwrap().trim_end_matches(unit).parse::<u64>().unwrap();
    let manifests = json!([
        base.config().server.max_in_flight,
        base.config().server.max_mib_in_flight,
        number(&resources["requests"]["cpu"], ""),
        number(&resources["limits"]["memory"], "Mi"),
        scaler["minReplicas"],
        scaler["metrics"][0]["resource"]["target"]["averageUtilization"],
    ]);
    assert_eq!(figures, manifests);
    for overlay in Overlay::all() {
        let (server, limits) = (overlay.config().server, &overlay.service()["resources"]["limits"]);
        let (calls, bodies) = (server.max_in_flight, server.max_mib_in_flight);
        let wanted = sizing(&format!("sizing.worst_mb({calls}, {bodies}) * 1e6 / sizing.MIB"));
        let limit = number(&limits["memory"], "Mi") as f64;
        assert!(wanted.as_f64().unwrap() < limit, "{}: {wanted} MiB", overlay.name);
    }
}
