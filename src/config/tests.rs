//! Every key of the file, right, in another case, misspelt and of a wrong type.

use std::collections::{BTreeMap, BTreeSet};

use super::fuzzing::buildkitd;
use super::key::Key;
use super::keys::FILE;
use super::*;
use crate::diag::Diagnostic;
use crate::store::prune::Space;

const EVERY: &str = include_str!("../../testdata/config/every-key.toml");

fn read(text: &str) -> Configuration {
    buildkitd(text).expect(text)
}

fn warnings(text: &str) -> Vec<String> {
    read(text).warnings
}

/// The path of a key as lists of keys have it: `*` for names that are free, no numbers.
fn general(path: &[Segment]) -> String {
    let mut path = path.to_vec();
    let mut text = String::new();
    if path[0] == Segment::Name("registry".into()) {
        path[1] = Segment::Name("*".into());
    }
    for segment in &path {
        match segment {
            Segment::Index(_) => text.push_str("[]"),
            Segment::Name(name) if name == "*" => text.push_str(".*"),
            segment => text = format!("{text}.{}", Segment::join([segment])),
        }
    }
    text.trim_start_matches('.').to_owned()
}

/// The whole file with one of its lines changed.
fn with_line(number: u32, change: impl Fn(&str) -> String) -> String {
    let line = |(at, line): (usize, &str)| if at as u32 + 1 == number { change(line) } else { line.to_owned() };
    EVERY.lines().enumerate().map(line).map(|line| line + "\n").collect()
}

#[test]
fn the_file_with_every_key_has_every_key_and_nothing_to_warn_of() {
    let all = read(EVERY);
    let mut known = Vec::new();
    Key::paths(FILE, "", &mut known);
    let known: BTreeSet<String> = known.into_iter().collect();
    let given: BTreeSet<String> = all.given.iter().map(|given| general(&given.path)).collect();
    assert_eq!(given, known);
    assert!(known.len() > 120, "{}", known.len());
    assert_eq!(all.warnings, Vec::<String>::new());
    let told = [
        "provenanceEnvDir",
        "grpc",
        "otel",
        "system.platformsCacheMaxAge",
        "worker.oci.labels",
        "worker.oci.rootless",
        "worker.oci.userRemapUnsupported",
        "worker.oci.proxySnapshotterPath",
        "worker.oci.stargzSnapshotter",
        "worker.containerd",
        "frontend.\"gateway.v0\"",
        "cache.gha",
        "ghacache",
    ];
    let told = told.map(|name| format!(": `{name}` has no effect: "));
    assert!(
        all.notes.len() == told.len() && all.notes.iter().zip(&told).all(|(note, part)| note.contains(part)),
        "{:#?}",
        all.notes
    );
}

#[test]
fn the_table_of_the_docs_has_every_key_once() {
    let mut known = Vec::new();
    Key::paths(FILE, "", &mut known);
    let rows = include_str!("KEYS.md").lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let names: Vec<String> =
        rows.flat_map(|cell| cell.split(", ")).map(|name| name.trim_matches('`').replace("\"HOST\"", "*")).collect();
    let covers = |name: &str, key: &str| match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        Some(table) => key.strip_prefix(table).is_some_and(|rest| rest.starts_with('.')),
        None => name == key,
    };
    for key in &known {
        assert_eq!(names.iter().filter(|name| covers(name, key)).count(), 1, "{key}");
    }
    for name in &names {
        assert!(known.iter().any(|key| covers(name, key)), "{name}");
    }
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

fn dir(text: &str) -> Option<PathBuf> {
    Some(PathBuf::from(text))
}

/// What the file with every key says of the worker.
fn worker_of_every_key() -> OciSettings {
    let name = |text: &str| Some(text.to_owned());
    let labels = BTreeMap::from([("org.example.pool".to_owned(), "fast".to_owned())]);
    let policy = GcPolicy {
        all: true,
        keep_duration: 48 * 3600,
        filters: texts(&["type==source.local"]),
        limits: Limits {
            reserved: Space::Bytes(512 << 20),
            max_used: Space::Bytes(1 << 30),
            min_free: Space::Bytes(10 << 30),
        },
        keep_bytes: Space::Bytes(512_000_000),
    };
    let limits = Limits { reserved: Space::Percent(10), max_used: Space::Percent(60), min_free: Space::Bytes(5000) };
    let network = NetworkSettings {
        mode: NetworkMode::Cni,
        cni_config: dir("/srv/cni.json"),
        cni_plugins: dir("/srv/cni/bin"),
        cni_pool: 16,
        bridge_name: name("build0"),
        bridge_subnet: name("10.9.0.0/16"),
    };
    OciSettings {
        enabled: Some(true),
        labels,
        platforms: ["linux/amd64", "linux/arm64"].map(|text| text.parse().expect("valid")).into(),
        snapshotter: Snapshotter::Native,
        rootless: true,
        no_process_sandbox: true,
        gc: GcSettings { off: false, limits, keep_storage: Space::Bytes(1 << 30), policies: vec![policy] },
        network,
        binary: name("crun"),
        cgroup_parent: name("builds"),
        apparmor_profile: name("builds"),
        seccomp: Seccomp::Unconfined,
        selinux: true,
        max_parallelism: Some(4),
    }
}

#[test]
fn every_value_goes_where_it_belongs() {
    let host = RegistryHost {
        mirrors: texts(&["mirror.example:5000", "harbor.example/proxy.docker.io"]),
        http: Some(false),
        insecure: Some(true),
        authorities: vec!["/srv/ca.pem".into()],
        keypairs: vec![KeyPair { key: "/srv/key.pem".into(), certificate: "/srv/cert.pem".into() }],
        tls_dirs: vec!["/srv/certs.d".into()],
        trusted_realms: texts(&["auth.example:8443"]),
    };
    let expected = Settings {
        root: dir("/srv/state"),
        debug: true,
        trace: true,
        log: LogSettings { format: Some(LogFormat::Json), level: Some(LogLevel::Info) },
        entitlements: Some(texts(&["network.host", "security.insecure", "device"])),
        proxy_network: true,
        provenance_env_dir: dir("/srv/provenance"),
        dns: Some(DnsSettings {
            nameservers: texts(&["192.0.2.1", "192.0.2.2"]),
            options: texts(&["edns0"]),
            search_domains: texts(&["corp.example"]),
        }),
        cdi: CdiSettings {
            disabled: true,
            dirs: vec!["/srv/cdi".into(), "/srv/cdi2".into()],
            auto_allowed: texts(&["vendor.example/class"]),
        },
        history: Some(HistorySettings { max_age: 3600, max_entries: 7 }),
        oci: worker_of_every_key(),
        registries: BTreeMap::from([("docker.io".to_owned(), host)]),
        dockerfile: FrontendSettings { enabled: Some(true), allowed_repositories: Vec::new() },
        gateway: FrontendSettings { enabled: Some(false), allowed_repositories: texts(&["registry.example/frontend"]) },
        system: SystemSettings { max_registry_concurrency: Some(3) },
    };
    assert_eq!(read(EVERY).settings, expected);
}

#[test]
fn every_key_is_read_in_any_case() {
    let all = read(EVERY);
    for given in &all.given {
        let upper = with_line(given.line, |line| {
            let (name, value) = line.split_once('=').expect(line);
            format!("{}={value}", name.to_uppercase())
        });
        assert_eq!(read(&upper), all, "{}", general(&given.path));
    }
}

#[test]
fn every_misspelt_key_is_told_with_its_line_and_what_was_meant() {
    for given in &read(EVERY).given {
        let Some(Segment::Name(name)) = given.path.last() else { panic!("{given:?}") };
        let text = with_line(given.line, |line| format!("x{line}"));
        let told = warnings(&text);
        let start = format!("buildkitd.toml:{}: unknown key `", given.line);
        assert_eq!(told.len(), 1, "{told:?}");
        // A short word may be nearer to another one.
        let meant = format!("did you mean `{name}`?");
        assert!(told[0].starts_with(&start) && (told[0].ends_with(&meant) || name.len() < 4), "{told:?}, not {meant}");
    }
}

#[test]
fn every_value_of_a_wrong_type_is_an_error_at_its_line() {
    for given in &read(EVERY).given {
        let Some(Segment::Name(name)) = given.path.last() else { panic!("{given:?}") };
        // Nothing is a date.
        let text = with_line(given.line, |_| format!("{name} = 1979-05-27"));
        let error = buildkitd(&text).expect_err(name);
        let told = Diagnostic::from_error(&error).render();
        let place = format!("buildkitd.toml:{}\n", given.line);
        let path = Segment::join(&given.path);
        assert!(told.starts_with(&place) && told.contains(&format!("error: `{path}` is to be ")), "{told}");
        assert!(told.contains("hint: write ") && told.contains(&format!(">>> {name} = 1979-05-27")), "{told}");
    }
}

#[test]
fn values_that_are_no_good_are_errors_that_say_why() {
    for (text, line, why) in [
        ("a = \n", 1, ""),
        ("[registry.x]\nmirrors = \"m\"\n", 2, "a list of texts: [\"…\"], but it is the string \"m\""),
        ("[registry.x]\nca = [\n  \"a\",\n  7,\n]\n", 4, "a list of texts: [\"…\"], but it is the integer 7"),
        ("[log]\nformat = \"jsno\"\n", 2, "`log.format`: unknown value \"jsno\", did you mean \"json\"?"),
        ("[log]\nlevel = \"loud\"\n", 2, "it is one of error, warn, info, debug, trace, warning, fatal, panic"),
        ("insecure-entitlements = [\"network.hots\"]\n", 1, "did you mean \"network.host\"?"),
        ("[worker.oci]\nplatforms = [\"linux/amd64\", \"li nux\"]\n", 2, "`worker.oci.platforms`: "),
        ("[worker.oci]\nsnapshotter = \"overlay\"\n", 2, "unknown value \"overlay\", did you mean \"overlayfs\"?"),
        ("[worker.oci]\nnetworkMode = \"brigde\"\n", 2, "did you mean \"bridge\"?"),
        ("[worker.oci]\ncniPoolSize = -1\n", 2, "it must not be negative"),
        ("[worker.oci]\ngckeepstorage = \"ten\"\n", 2, "a size: bytes, \"10GB\" or \"10%\""),
        ("[worker.oci]\ngcpolicy = 1\n", 2, "a list of tables"),
        ("[worker.oci]\nmax-parallelism = 99999999999999999999\n", 2, ""),
        ("[[worker.oci.gcpolicy]]\nall = true\nfilters = [\"size==1\"]\n", 3, "`worker.oci.gcpolicy[0].filters`: "),
        (
            "[[worker.oci.gcpolicy]]\n[[worker.oci.gcpolicy]]\nkeepDuration = \"-1h\"\n",
            3,
            "gcpolicy[1].keepDuration` is to be a duration",
        ),
        ("[system]\nmaxRegistryConcurrency = 0\n", 2, "it must be greater than zero"),
        ("[history]\nmaxEntries = -1\n", 2, "it must not be negative"),
        ("worker = 1\n", 1, "`worker` is to be a table"),
        ("[registry]\nx = 1\n", 2, "a table, under `[NAME]`, but it is the integer 1"),
    ] {
        let error = buildkitd(text).expect_err(text);
        assert_eq!(error.locations()[0].ranges[0].start, line, "{text}");
        assert!(error.to_string().contains(why), "{error}");
        assert_eq!(error.hints().len(), 1);
    }
}

#[test]
fn old_spellings_and_all_forms_of_times_and_sizes() {
    let age = |value: &str| read(&format!("[history]\nmaxAge = {value}\n")).settings.history.expect("given").max_age;
    for (value, seconds) in
        [("90", 90), ("\"90\"", 90), ("\"1m30s\"", 90), ("\"1h\"", 3600), ("\"\"", 0), ("0x10", 16), ("1_000", 1000)]
    {
        assert_eq!(age(value), seconds, "{value}");
    }
    let kept = |value: &str| read(&format!("[worker.oci]\ngckeepstorage = {value}\n")).settings.oci.gc.keep_storage;
    for (value, space) in [
        ("5000", Space::Bytes(5000)),
        ("\"5000\"", Space::Bytes(5000)),
        ("\"1kb\"", Space::Bytes(1024)),
        ("\"1.5GiB\"", Space::Bytes(3 << 29)),
        ("1e3", Space::Bytes(1000)),
        ("\"7%\"", Space::Percent(7)),
        ("\"\"", Space::Bytes(0)),
    ] {
        assert_eq!(kept(value), space, "{value}");
    }
    // As BuildKit has it, 0 and less mean no limit, and an empty text means none.
    let text = "root = \"\"\n[worker.oci]\nmax-parallelism = 0\nbinary = \"\"\napparmor-profile = \"\"\nsnapshotter = \"\"\nnetworkMode = \"\"\n[log]\nlevel = \"\"\n";
    assert_eq!(read(text).settings, Settings::default());
    assert_eq!(read("[log]\nlevel = \"WARNING\"\n").settings.log.level, Some(LogLevel::Warn));
}

#[test]
fn tables_may_be_written_in_any_form_and_the_last_spelling_counts() {
    let written = read("[registry.\"a:1\"]\nhttp = true\n[worker.oci.labels]\n\"a.b\" = \"c\"\n[frontend.\"gateway.v0\"]\nenabled = true\n").settings;
    let inline = "registry = { \"a:1\" = { http = true } }\nworker.oci.labels.\"a.b\" = \"c\"\nfrontend.\"gateway.v0\".enabled = true\n";
    assert_eq!(read(inline).settings, written);
    assert_eq!(written.registries["a:1"].http, Some(true));
    for (text, on) in [("debug = true\nDebug = false\n", false), ("Debug = false\ndebug = true\n", true)] {
        assert_eq!(read(text).settings.debug, on, "{text}");
    }
    // Names of hosts are taken as they are.
    assert_eq!(read("[registry.A]\n[registry.a]\nhttp = true\n").settings.registries.len(), 2);
}

#[test]
fn unknown_keys_are_told_with_what_may_be_meant() {
    for (text, told) in [
        ("[gc]\nenabled = true\n", "1: unknown key `gc`, `gc` belongs below `[worker.oci]`"),
        ("max-parallelism = 4\n", "1: unknown key `max-parallelism`, `max-parallelism` belongs below `[worker.oci]`"),
        (
            "[worker.oci]\nkeepbytes = 1\n",
            "2: unknown key `worker.oci.keepbytes`, `keepBytes` belongs below `[[worker.oci.gcpolicy]]`",
        ),
        (
            "[cdi]\ntlsconfigdir = 1\n",
            "2: unknown key `cdi.tlsconfigdir`, `tlsconfigdir` belongs below `[registry.\"HOST\"]`",
        ),
        ("nothing-like-it = 4\n", "1: unknown key `nothing-like-it`"),
        (
            "\n[[worker.oci.gcpolicy]]\nkeepByte = 1\n",
            "3: unknown key `worker.oci.gcpolicy[0].keepByte`, did you mean `keepBytes`?",
        ),
        (
            "[registry.docker.io]\nhttp = true\n",
            "1: unknown key `registry.docker.io`, a name with dots stands in quotes: `[registry.\"docker.io…\"]`",
        ),
        (
            "[frontend.dockerfile.v0]\nenabled = true\n",
            "1: unknown key `frontend.dockerfile`, a name with dots stands in quotes: `frontend.\"dockerfile.v0\"`",
        ),
        ("[grpc]\ndebugAdress = \"x\"\n", "2: unknown key `grpc.debugAdress`, did you mean `debugAddress`?"),
        (
            "[worker.oci]\nuserRemapUnsupported = \"0\"\n",
            "2: `worker.oci.userRemapUnsupported` has no effect: BuildKit does not support it either",
        ),
    ] {
        assert_eq!(warnings(text), [format!("buildkitd.toml:{told}")]);
    }
}

#[test]
fn a_file_that_is_no_text_is_an_error_at_its_line() {
    let error = super::buildkitd::parse_bytes("b.toml", b"debug = true\nroot = \"\xff\"\n").expect_err("invalid");
    assert_eq!((error.to_string(), error.locations()[0].ranges[0].start), ("the file is not UTF-8".to_owned(), 2));
}
