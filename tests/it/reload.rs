//! What changes under load: the policies, their secrets, the credentials and the clock. No call meets half a change.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use lambda_policy::{
    config::Config,
    policy::{Policy, credentials::Base},
};

use crate::{
    binary::Process,
    support::{
        Directory, Failed, Service, client, config, eventually, execute, lambda,
        load::{Load, Tally},
        request,
    },
};

/// A volume as Kubernetes mounts a Secret or a ConfigMap: names that point through `..data` at one of the versions.
struct Volume(PathBuf);

impl Volume {
    fn new(directory: &Path, name: &str) -> Self {
        let path = directory.join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Puts another version in force, whole and at once, and takes the last one away, as the kubelet does.
    fn swap(&self, version: &str, files: &[(&str, &str)]) {
        let (new, data) = (self.0.join(version), self.0.join("..data"));
        fs::create_dir_all(&new).unwrap();
        let old = fs::read_link(&data).ok();
        for (name, text) in files {
            fs::write(new.join(name), text).unwrap();
            if old.is_none() {
                symlink(Path::new("..data").join(name), self.0.join(name)).unwrap();
            }
        }
        symlink(version, self.0.join("..data_tmp")).unwrap();
        fs::rename(self.0.join("..data_tmp"), &data).unwrap();
        if let Some(old) = old {
            fs::remove_dir_all(self.0.join(old)).unwrap();
        }
    }
}

fn none_lost(what: &str, tally: &Tally) {
    assert!(tally.is_whole(), "{what}: {} lost of {}: {:?}", tally.failed.len(), tally.answered, tally.failed.first());
}

/// A policy whose key stands in two files of a volume.
fn keyed(volume: &str) -> String {
    format!(
        "  echo: {{function: echo, breaker: none, credentials: {{access_key_id: {{file: {volume}/id}}, \
         secret_access_key: {{file: {volume}/secret}}}}}}\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_rotated_by_a_swapped_symlink_loses_no_call() {
    let lambda = lambda().await;
    lambda.set_key("AKIDFIRST", "first-secret".into());
    let directory = Directory::new();
    let volume = Volume::new(&directory.0, "keys");
    volume.swap("..1", &[("id", "AKIDFIRST\n"), ("secret", "first-secret\n")]);
    let file = directory.write("f.yaml", &config(&lambda, "", &keyed("keys")));
    let service = Service::run(Config::load(&file).unwrap(), Some(file)).await;
    let load = Load::of(vec![service.client.clone(); 8], "echo");
    load.more(20).await;
    // The next key is there before it is used, and the last one until nobody uses it any more.
    lambda.set_key("AKIDSECOND", "second-secret".into());
    volume.swap("..2", &[("id", "AKIDSECOND\n"), ("secret", "second-secret\n")]);
    eventually("the new key", async || {
        let last = lambda.requests().pop()?;
        (last.signed_by.as_deref() == Some("AKIDSECOND")).then_some(())
    })
    .await;
    // A call in flight may still be signed with it.
    tokio::time::sleep(Duration::from_millis(500)).await;
    lambda.remove_key("AKIDFIRST");
    load.more(50).await;
    let tally = load.stop().await;
    none_lost("calls", &tally);
    assert_eq!(lambda.runs("echo"), tally.answered);
}

/// Files are swapped while they are read: no id is put together with another key's secret.
#[test]
fn what_is_read_while_it_changes_is_of_one_version() {
    let directory = Directory::new();
    let volume = Volume::new(&directory.0, "keys");
    let text = format!("defaults: {{region: us-east-1}}\npolicies:\n{}", keyed("keys"));
    let file = directory.write("f.yaml", &text);
    let put = |n: usize| {
        let (id, secret) = (format!("AKID{n}"), format!("secret-of-{n}"));
        volume.swap(&format!("..{n}"), &[("id", &id), ("secret", &secret)]);
    };
    put(0);
    let stop = AtomicBool::new(false);
    let (mut loads, mut mixed) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 1.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                put(n);
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(1500) {
            if let Ok(config) = Config::load(&file) {
                loads += 1;
                let policy = config.policies.named.values().next().unwrap();
                mixed += usize::from(!is_of_one_version(policy));
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(loads > 20, "{loads}");
    assert_eq!(mixed, 0, "of {loads}");
}

fn is_of_one_version(policy: &Policy) -> bool {
    let Base::Keys(keys) = policy.access.credentials().base() else { return false };
    let number = keys.id.as_str().trim_start_matches("AKID");
    keys.secret.expose() == format!("secret-of-{number}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_takes_effect_between_two_calls_and_loses_none() {
    let lambda = lambda().await;
    let directory = Directory::new();
    let volume = Volume::new(&directory.0, "config");
    // Both policies change together: at any time both are of one version.
    let version = |n: usize| {
        let function = ["echo", "greet"][n % 2];
        config(&lambda, "", &format!("  echo: {{function: echo, title: v{n}}}\n  other: {{function: {function}}}\n"))
    };
    volume.swap("..0", &[("f.yaml", &version(0))]);
    let mut process = Process::serve(&volume.0.join("f.yaml"), &[("LAMBDA_POLICY_LOG", "info")]);
    let address = eventually("the service", async || process.address("grpc")).await;
    let caller = client(&address).await;
    let load = Load::of(vec![caller.clone(); 8], "echo");
    load.more(10).await;
    for n in 1..=20 {
        match n % 4 {
            3 => volume.swap(&format!("..{n}"), &[("f.yaml", "policies: {echo: {function: 'a b'}}")]),
            _ => volume.swap(&format!("..{n}"), &[("f.yaml", &version(n))]),
        }
        process.signal("HUP");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut asked = 0;
    eventually("the last version", async || {
        asked += 1;
        let answer = execute(&caller, request("other", r#"{"name": "Ada"}"#)).await.unwrap();
        crate::support::output(&answer).get("message").is_none().then_some(())
    })
    .await;
    let tally = load.stop().await;
    none_lost("calls", &tally);
    assert_eq!(lambda.runs("echo") + lambda.runs("greet"), tally.answered + asked);
    let said = process.said();
    assert!(
        said.contains("the old one stays in force") && said.matches("configuration reloaded").count() >= 10,
        "{said}"
    );
    assert_eq!(process.exit_code(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_goes_wrong_under_load_loses_no_call() {
    let lambda = lambda().await;
    let service = Service::start(&lambda, "  echo: {function: echo, breaker: none}\n").await;
    let load = Load::of(vec![service.client.clone(); 16], "echo");
    for ahead in [3600, 0, 7200, 0] {
        load.more(50).await;
        lambda.set_clock_ahead(Duration::from_secs(ahead));
    }
    load.more(50).await;
    let tally = load.stop().await;
    none_lost("calls", &tally);
    assert_eq!(lambda.runs("echo"), tally.answered);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_expire_under_load_lose_no_call_and_are_renewed_once_each() {
    let lambda = lambda().await;
    let role = "{assume_role: {role_arn: 'arn:aws:iam::123456789012:role/r'}, access_key_id: AKIDLOCAL, \
                secret_access_key: the-secret-of-the-embedded-lambda}";
    let service =
        Service::start(&lambda, &format!("  echo: {{function: echo, breaker: none, credentials: {role}}}\n")).await;
    let load = Load::of(vec![service.client.clone(); 16], "echo");
    load.more(50).await;
    for _ in 0..4 {
        lambda.expire_sessions();
        load.more(50).await;
    }
    let tally = load.stop().await;
    none_lost("calls", &tally);
    assert_eq!((lambda.runs("echo"), lambda.assumed()), (tally.answered, 5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_are_taken_back_under_load_fail_every_call_before_it_runs() {
    let lambda = lambda().await;
    lambda.set_key("AKIDGONE", "soon".into());
    let credentials = "{access_key_id: AKIDGONE, secret_access_key: soon}";
    let service =
        Service::start(&lambda, &format!("  echo: {{function: echo, breaker: none, credentials: {credentials}}}\n"))
            .await;
    let load = Load::of(vec![service.client.clone(); 8], "echo");
    load.more(50).await;
    lambda.remove_key("AKIDGONE");
    load.more(50).await;
    let tally = load.stop().await;
    assert!(!tally.failed.is_empty());
    let told = |failed: &Failed| (failed.reason.clone(), failed.ran.clone());
    assert!(tally.failed.iter().all(|f| told(f) == ("CREDENTIALS_REJECTED".to_owned(), "no".to_owned())));
    assert_eq!(lambda.runs("echo"), tally.answered, "what failed did not run");
}
