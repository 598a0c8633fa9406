//! The network of steps: `networkMode` and the keys beside it, with Debian's plugins, and `[dns]`.

use std::fs;
use std::process::{Child, Stdio};

use super::{text, tool, with_base};
use crate::support::build::{Output, Project, User, run};
use crate::support::lab::{GATEWAY, Lab, records, wait_for};

/// Waits for an answer from `PORT` of the lab.
const GO: &str = "timeout 60 nc $GATEWAY $PORT < /dev/null | grep -q go";

/// A project of root's with busybox and these lines, in which `GATEWAY` and `PORT` are known.
fn project(port: u16, lines: &str) -> Project {
    with_base(User::Root, &format!("ARG GATEWAY={GATEWAY} PORT={port}\n{lines}\n"))
}

/// A step that says that it waits, and never ends.
fn endless(lab: &Lab) -> Project {
    let (listener, port) = lab.listen();
    // Whoever connects is never answered.
    std::thread::spawn(move || drop(listener.incoming().collect::<Vec<_>>()));
    project(port, "RUN echo waiting; exec nc $GATEWAY $PORT")
}

/// Starts a build and waits until its step runs.
fn start(lab: &Lab, project: &Project) -> Child {
    let mut command = lab.command(project, &[]);
    let child =
        command.stdout(Stdio::null()).stderr(fs::File::create(project.home().join("log")).unwrap()).spawn().unwrap();
    wait_for("the step to run", || log(project).contains(" waiting\n"));
    child
}

fn signal(child: &Child, name: &str) {
    tool("kill", &[&format!("-{name}"), &child.id().to_string()]);
}

fn log(project: &Project) -> String {
    fs::read_to_string(project.home().join("log")).unwrap_or_default()
}

#[test]
fn steps_of_two_builds_listen_on_one_port_at_once() {
    let lab = Lab::new();
    lab.config("networkMode = \"cni\"");
    let port = lab.barrier(2);
    let projects = ["one", "two"].map(|name| {
        let listens = "nc -l -p 8080 -e cat & until netstat -ltn | grep -q :8080; do :; done";
        project(port, &format!("RUN {listens}; {GO} && echo {name} | nc 127.0.0.1 8080 | grep -x {name}"))
    });
    let builds: Vec<Output> = std::thread::scope(|scope| {
        let started: Vec<_> = projects.iter().map(|project| scope.spawn(|| lab.build(project, &[]))).collect();
        started.into_iter().map(|build| build.join().unwrap()).collect()
    });
    for (build, project) in builds.into_iter().zip(&projects) {
        let _ = build.success();
        lab.assert_clean(project);
    }
    assert_eq!((lab.count("ADD"), lab.count("DEL")), (2, 2), "{:?}", lab.calls());
    // The bridge is the configuration's, and stays as with every runtime.
    assert_eq!(lab.links(), ["lo", "br-lab"]);
}

#[test]
fn a_step_of_a_network_sees_its_devices_and_files() {
    let lab = Lab::new();
    lab.config("networkMode = \"cni\"");
    let lines = "RUN { ip -o addr; ls /sys/class/net; ip route; cat /etc/hosts; } > /seen\n\
        RUN --network=none ip -o link > /none\nRUN --network=host ip -o link > /host";
    let allow = ["--allow", "network.host"];
    let seen = lab.built(&project(0, lines), &allow, "seen");
    for expected in [
        " lo    inet 127.0.0.1/8 ",
        " eth0    inet 10.99.0.2/24 ",
        "\neth0\nlo\n",
        "default via 10.99.0.1 dev eth0",
        "127.0.0.1\tlocalhost buildkitsandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n",
    ] {
        assert!(seen.contains(expected), "{expected:?} is not in:\n{seen}");
    }
    assert!(!seen.contains("br-lab"), "{seen}");
    let none = lab.built(&project(0, lines), &allow, "none");
    assert!(none.contains(": lo:") && !none.contains("eth0"), "{none}");
    let host = lab.built(&project(0, lines), &allow, "host");
    // The other end of a pair may be called `veth01…`.
    assert!(host.contains("br-lab") && !host.contains(" eth0"), "{host}");
}

#[test]
fn namespaces_are_used_again() {
    let lab = Lab::new();
    lab.config("networkMode = \"cni\"");
    let steps = "RUN true\nRUN true; true\nRUN true; true; true\nRUN ip -o addr > /seen";
    let seen = lab.built(&project(0, steps), &[], "seen");
    assert!(seen.contains("10.99.0.2/24"), "{seen}");
    assert_eq!(lab.calls(), ["ADD", "DEL"]);
}

#[test]
fn namespaces_are_made_ahead_up_to_the_size_of_the_pool_and_to_what_can_run_at_once() {
    for (lines, ahead) in [
        ("cniPoolSize = 3\nmax-parallelism = 8", 3),
        ("cniPoolSize = 64\nmax-parallelism = 2", 2),
        ("cniPoolSize = 0\nmax-parallelism = 8", 1),
    ] {
        let lab = Lab::new();
        lab.config(&format!("networkMode = \"cni\"\n{lines}"));
        let calls = lab.path("calls");
        let added = move || fs::read_to_string(&calls).unwrap_or_default().matches("ADD").count();
        let project = project(lab.gate(move || added() == ahead), &format!("RUN {GO}\nRUN true"));
        let _ = lab.build(&project, &["--debug"]).success().says("using a network namespace again");
        assert_eq!((lab.count("ADD"), lab.count("DEL")), (ahead, ahead), "{lines}: {:?}", lab.calls());
        lab.assert_clean(&project);
    }
}

#[test]
fn a_build_whose_steps_need_no_network_makes_none() {
    let lab = Lab::new();
    lab.config("networkMode = \"cni\"\ncniPoolSize = 4");
    let copies = Project::with(User::Root, "FROM scratch\nCOPY Dockerfile /\n");
    let none = with_base(User::Root, "RUN --network=none true\n");
    none.file(
        "Dockerfile",
        "FROM scratch\nCOPY --from=host busybox /bin/busybox\nRUN --network=none [\"/bin/busybox\", \"true\"]\n",
    );
    for project in [&copies, &none] {
        let _ = lab.build(project, &[]).success();
        assert!(!project.state().join("network").exists());
    }
    assert_eq!(lab.calls(), Vec::<String>::new());
    // Nor does one all of whose steps are cached.
    let cached = project(0, "RUN true");
    let _ = lab.build(&cached, &[]).success();
    let before = lab.calls();
    assert_eq!(lab.build(&cached, &[]).success().count(" CACHED\n"), 3);
    assert_eq!(lab.calls(), before);
}

#[test]
fn what_a_privileged_step_may_have_changed_is_not_used_again() {
    let lab = Lab::new();
    lab.config("networkMode = \"cni\"");
    let steps = "RUN true\nRUN --security=insecure ip link set eth0 down\nRUN ip -o link show eth0 > /seen";
    let seen = lab.built(&project(0, steps), &["--allow", "security.insecure"], "seen");
    assert!(seen.contains(",UP,"), "{seen}");
    assert_eq!((lab.count("ADD"), lab.count("DEL")), (2, 2), "{:?}", lab.calls());
}

#[test]
fn a_step_with_a_host_name_has_a_namespace_of_its_own_that_knows_it() {
    let lab = Lab::new();
    lab.config("networkMode = \"cni\"");
    let project = project(0, "RUN hostname > /name\nRUN grep -x builder.example /name");
    let _ = lab.build(&project, &["--build-arg", "BUILDKIT_SANDBOX_HOSTNAME=builder.example"]).success();
    let calls = lab.calls();
    let named = calls.iter().filter(|call| call.ends_with(" IgnoreUnknown=1;K8S_POD_NAME=builder.example")).count();
    assert_eq!((named, calls.len()), (6, 6), "{calls:?}");
}

#[test]
fn nothing_is_left_of_a_build_that_fails_or_is_stopped() {
    let lab = Lab::new();
    lab.network("\"ipMasq\":true,", "");
    lab.config("networkMode = \"cni\"\ncniPoolSize = 2\nmax-parallelism = 2");
    let failing = project(0, "RUN false");
    let _ = lab.build(&failing, &[]).failure(1).says("exit code: 1");
    lab.assert_clean(&failing);
    assert!(lab.count("ADD") > 0);
    let stopped = endless(&lab);
    let mut child = start(&lab, &stopped);
    assert!(!lab.rules().is_empty() && !lab.leases().is_empty());
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(128 + 15), "{}", log(&stopped));
    lab.assert_clean(&stopped);
}

#[test]
fn a_plugin_that_hangs_is_stopped_with_the_build_and_its_part_undone() {
    let lab = Lab::new();
    lab.network("\"ipMasq\":true,", r#",{"type":"slow"}"#);
    lab.config("networkMode = \"cni\"");
    lab.plugin("slow", "[ $CNI_COMMAND = DEL ] || { echo $$ > ${0%/*}/pid; exec sleep 1000; }");
    let project = project(0, "RUN true");
    let mut command = lab.command(&project, &[]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let pid = lab.plugins().join("pid");
    wait_for("the plugin to run", || fs::read_to_string(&pid).is_ok_and(|text| text.ends_with('\n')));
    signal(&child, "INT");
    assert_eq!(child.wait().unwrap().code(), Some(128 + 2));
    let pid = fs::read_to_string(&pid).unwrap();
    assert!(!std::path::Path::new("/proc").join(pid.trim()).exists(), "the plugin lives on");
    lab.assert_clean(&project);
}

#[test]
fn what_a_killed_build_left_is_released_by_the_next() {
    let lab = Lab::new();
    lab.network("\"ipMasq\":true,", "");
    lab.config("networkMode = \"cni\"\ncniPoolSize = 2\nmax-parallelism = 2");
    let killed = endless(&lab);
    let mut child = start(&lab, &killed);
    wait_for("the pool to be full", || records(&killed.state()).len() == 1 && lab.leases().len() == 2);
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success());
    // Its namespaces go with it; what is elsewhere waits for the next build, whatever that is about.
    wait_for("devices to go", || !lab.links().iter().any(|name| name.starts_with("veth")));
    assert_eq!((lab.leases().len(), records(&killed.state()).len()), (2, 1));
    assert!(!lab.rules().is_empty());
    killed.file("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    lab.config("networkMode = \"host\"");
    let _ = lab.build(&killed, &[]).success().silent_about("killed");
    lab.assert_clean(&killed);
}

/// Puts a plugin in place that does its part of ADD, says so and never answers; returns where it says so.
fn hangs_after_its_part(lab: &Lab, name: &str) -> std::path::PathBuf {
    let done = lab.plugins().join("done");
    let script = "[ $CNI_COMMAND = ADD ] || exec /usr/lib/cni/${0##*/}\n/usr/lib/cni/${0##*/} > ${0%/*}/answer && : > ${0%/*}/done && exec sleep 1000";
    lab.plugin(name, script);
    done
}

#[test]
fn what_a_build_left_that_was_killed_while_a_plugin_worked_is_released_by_the_next() {
    let built_in = "networkMode = \"bridge\"\nbridgeName = \"br-own\"\nbridgeSubnet = \"10.99.0.0/24\"";
    for (lines, plugin) in [("networkMode = \"cni\"", "bridge"), (built_in, "bridge"), (built_in, "firewall")] {
        let lab = Lab::new();
        lab.network("\"ipMasq\":true,", "");
        lab.config(lines);
        let done = hangs_after_its_part(&lab, plugin);
        let killed = project(0, "RUN true");
        let mut command = lab.command(&killed, &[]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_for("the plugin to have done its part", || done.exists());
        child.kill().unwrap();
        let _ = child.wait().unwrap();
        wait_for("devices to go", || !lab.links().iter().any(|name| name.starts_with("veth")));
        assert!(!lab.rules().is_empty() && lab.leases().len() == 1, "{plugin}: {:?} {:?}", lab.rules(), lab.leases());
        lab.plugin(plugin, &format!("exec /usr/lib/cni/{plugin}"));
        lab.config("networkMode = \"host\"");
        killed.file("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
        let _ = lab.build(&killed, &[]).success().silent_about("killed");
        lab.assert_clean(&killed);
        assert!(!lab.links().contains(&"br-own".to_owned()), "{plugin}: {:?}", lab.links());
    }
}

#[test]
fn a_build_that_is_over_does_not_wait_for_the_plugin_of_another() {
    let lab = Lab::new();
    lab.config("networkMode = \"bridge\"\nbridgeName = \"br-own\"\nbridgeSubnet = \"10.99.0.0/24\"");
    let (hang, hangs) = (lab.plugins().join("hang"), lab.plugins().join("hangs"));
    let script = "if [ $CNI_COMMAND = ADD ] && [ -e ${0%/*}/hang ]; then : > ${0%/*}/hangs; while [ -e ${0%/*}/hang ]; do sleep 0.05; done; \
        rm ${0%/*}/hangs; fi; exec /usr/lib/cni/firewall";
    lab.plugin("firewall", script);
    let goes_on = hangs.clone();
    let first = project(lab.gate(move || goes_on.exists()), &format!("RUN echo waiting; {GO}"));
    let mut ending = start(&lab, &first);
    fs::write(&hang, "").unwrap();
    let second = project(0, "RUN true");
    let mut command = lab.command(&second, &[]);
    let mut other = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    assert!(ending.wait().unwrap().success(), "{}", log(&first));
    assert!(hangs.exists() && other.try_wait().unwrap().is_none(), "the other build's plugin hangs still");
    fs::remove_file(&hang).unwrap();
    assert!(other.wait().unwrap().success());
    lab.assert_clean(&first);
    lab.assert_clean(&second);
    assert_eq!(lab.links(), ["lo"], "the bridge goes with the last");
}

/// The network of Docker's guide, which is a file of BuildKit's, with another name and other addresses.
const GUIDE: &str = r#"{
	"cniVersion": "1.0.0",
	"name": "lab",
	"type": "bridge",
	"bridge": "br-lab",
	"isDefaultGateway": true,
	"forceAddress": false,
	"ipMasq": true,
	"hairpinMode": true,
	"ipam": {
		"type": "host-local",
		"ranges": [
			[{
				"subnet": "10.99.0.0/16"
			}]
		]
	}
}
"#;

#[test]
fn the_guides_example_needs_nothing_but_its_two_places() {
    let lab = Lab::new();
    // The guide's image has the plugins in `/opt/cni/bin` and the network in `/etc/buildkit/cni.json`.
    lab.over("/opt");
    lab.over("/etc");
    lab.tool("sh", &["-c", "mkdir -p /opt/cni /etc/buildkit && cp -a $0 /opt/cni/bin", text(&lab.plugins())]);
    fs::write(lab.path("cni.json"), GUIDE).unwrap();
    lab.tool("cp", &[text(&lab.path("cni.json")), "/etc/buildkit/cni.json"]);
    let lines = "RUN { ip -o addr; ip route; } > /seen\nRUN true";
    // `--oci-worker-net=cni`, and what is chosen where nothing is said.
    for toml in ["[worker.oci]\n  networkMode = \"cni\"\n", ""] {
        fs::write(lab.path("buildkitd.toml"), toml).unwrap();
        fs::write(lab.path("calls"), "").unwrap();
        let project = project(0, lines);
        let seen = lab.built(&project, &[], "seen");
        assert!(seen.contains(" eth0    inet 10.99.0.") && seen.contains("default via 10.99.0.1 dev eth0"), "{seen}");
        assert_eq!(lab.calls(), ["ADD", "DEL"], "{toml}");
        lab.assert_clean(&project);
    }
}

#[test]
fn what_a_killed_build_left_is_told_of_when_it_cannot_be_released() {
    let lab = Lab::new();
    lab.config("networkMode = \"cni\"");
    let killed = endless(&lab);
    let mut child = start(&lab, &killed);
    child.kill().unwrap();
    let _ = child.wait().unwrap();
    lab.plugin("bridge", "echo '{\"code\":999,\"msg\":\"not today\"}'; exit 1");
    killed.file("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    let told = "the network lab of a build that was killed could not be taken down";
    let _ = lab.build(&killed, &[]).success().says(told).says("not today (code 999)").says("network/1/rbuild-");
    assert_eq!(records(&killed.state()), ["1"]);
    lab.plugin("bridge", "exec /usr/lib/cni/bridge");
    let _ = lab.build(&killed, &[]).success().silent_about(told);
    lab.assert_clean(&killed);
}

#[test]
fn an_address_that_a_killed_build_holds_is_released_before_one_is_taken() {
    let lab = Lab::new();
    lab.network("", "");
    // Room for the bridge and one more.
    let path = lab.path("cni.conflist");
    fs::write(&path, fs::read_to_string(&path).unwrap().replace("10.99.0.0/24", "10.99.0.0/30")).unwrap();
    lab.config("networkMode = \"cni\"");
    let killed = endless(&lab);
    let mut child = start(&lab, &killed);
    child.kill().unwrap();
    let _ = child.wait().unwrap();
    killed.file("Dockerfile", format!("{}RUN true again\n", crate::support::build::BASE));
    let _ = lab.build(&killed, &[]).success();
    lab.assert_clean(&killed);
}

#[test]
fn the_built_in_bridge_comes_with_the_first_build_and_goes_with_the_last() {
    let lab = Lab::new();
    lab.config("networkMode = \"bridge\"\nbridgeName = \"br-own\"\nbridgeSubnet = \"10.99.0.0/24\"\ncniPoolSize = 2");
    let first = endless(&lab);
    let mut child = start(&lab, &first);
    let second = project(lab.gate(|| true), &format!("RUN {GO} && ip -o addr show eth0 > /seen"));
    let seen = lab.built(&second, &[], "seen");
    assert!(seen.contains(" 10.99.0."), "{seen}");
    assert!(lab.links().contains(&"br-own".to_owned()), "the other build is still on it");
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(128 + 15), "{}", log(&first));
    lab.assert_clean(&first);
    lab.assert_clean(&second);
    assert_eq!(lab.links(), ["lo"]);
}

#[test]
fn a_bridge_that_was_there_before_stays() {
    let lab = Lab::new();
    lab.config("networkMode = \"bridge\"\nbridgeName = \"br-old\"\nbridgeSubnet = \"10.99.0.0/24\"");
    lab.tool("ip", &["link", "add", "br-old", "type", "bridge"]);
    let _ = lab.build(&project(0, "RUN true"), &[]).success();
    assert_eq!(lab.links(), ["lo", "br-old"]);
}

#[test]
fn a_bridge_that_a_killed_build_left_goes_with_the_next() {
    let lab = Lab::new();
    lab.config("networkMode = \"bridge\"\nbridgeName = \"br-own\"\nbridgeSubnet = \"10.99.0.0/24\"");
    let killed = endless(&lab);
    let mut child = start(&lab, &killed);
    child.kill().unwrap();
    let _ = child.wait().unwrap();
    wait_for("devices to go", || !lab.links().iter().any(|name| name.starts_with("veth")));
    assert_eq!(lab.links(), ["lo", "br-own"]);
    lab.config("networkMode = \"host\"");
    killed.file("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    let _ = lab.build(&killed, &[]).success();
    lab.assert_clean(&killed);
    assert_eq!(lab.links(), ["lo"]);
}

#[test]
fn modes_without_plugins() {
    let lab = Lab::new();
    let project = project(0, "RUN ip -o link > /seen");
    lab.tool("ip", &["link", "add", "br-seen", "type", "bridge"]);
    for (mode, is_hosts) in [("host", true), ("none", false), ("auto", true)] {
        lab.config(&format!("networkMode = \"{mode}\""));
        fs::remove_file(lab.path("cni.conflist")).unwrap();
        let seen = lab.built(&project, &["--no-cache"], "seen");
        assert!(seen.contains(": lo: ") && seen.contains("br-seen") == is_hosts, "{mode}: {seen}");
    }
    assert_eq!(lab.calls(), Vec::<String>::new());
    lab.config("networkMode = \"auto\"");
    let seen = lab.built(&project, &["--no-cache"], "seen");
    assert!(seen.contains("eth0") && lab.count("ADD") == 1, "{seen}");
}

#[test]
fn the_network_is_in_no_cache_key() {
    let lab = Lab::new();
    let project = project(0, "RUN true\nRUN --network=none true");
    lab.config("networkMode = \"host\"");
    let _ = lab.build(&project, &[]).success();
    lab.config("networkMode = \"cni\"\n[dns]\nnameservers = [\"192.0.2.53\"]");
    assert_eq!(lab.build(&project, &[]).success().count(" CACHED\n"), 4);
    assert_eq!(lab.calls(), Vec::<String>::new());
}

#[test]
fn names_are_resolved_as_settings_network_and_host_say_in_this_order() {
    let lab = Lab::new();
    let all = "[dns]\nnameservers = [\"192.0.2.53\", \"127.0.0.1\"]\nsearchDomains = [\"a.example\", \"b.example\"]\noptions = [\"edns0\", \"ndots:2\"]";
    let given = "nameserver 192.0.2.53\nnameserver 127.0.0.1\nsearch a.example b.example\noptions edns0 ndots:2\n";
    let (none, network) = ("", "\"dns\":{\"nameservers\":[\"10.99.0.1\"],\"domain\":\"lab.example\"},");
    let project = project(0, "RUN cat /etc/resolv.conf > /seen");
    for (mode, dns, network, starts) in [
        ("cni", all, network, given),
        ("host", all, network, given),
        ("none", all, network, given),
        ("cni", none, network, "nameserver 10.99.0.1\nsearch lab.example\n"),
        ("cni", "[dns]\noptions = [\"rotate\"]", network, "nameserver 10.99.0.1\nsearch lab.example\noptions rotate\n"),
    ] {
        lab.network(network, "");
        lab.config(&format!("networkMode = \"{mode}\"\n{dns}"));
        let seen = lab.built(&project, &["--no-cache"], "seen");
        assert!(seen.starts_with(starts), "{mode} {dns}: {seen}");
        assert_eq!(seen.matches("nameserver").count(), starts.matches("nameserver").count(), "{seen}");
    }
    lab.config("[dns]\nnameservers = [\"resolver.example\"]");
    let _ = lab
        .build(&project, &["--no-cache"])
        .failure(2)
        .says("nameservers of [dns] in buildkitd.toml: \"resolver.example\" is no address")
        .says("nameservers = [\"192.0.2.1\"]");
}

#[test]
fn networks_that_cannot_be_had_say_why_and_what_to_do() {
    let host = "networkMode = \"host\" in [worker.oci] of buildkitd.toml";
    let lab = Lab::new();
    let project = project(0, "RUN true");
    let fails = |config: &str, lines: &str, code: i32, said: &[&str]| {
        fs::write(lab.path("cni.conflist"), config).unwrap();
        lab.config(&format!("networkMode = \"cni\"\n{lines}"));
        let output = lab.build(&project, &[]).failure(code);
        let _ = said.iter().fold(output, |output, text| output.says(text));
        assert_eq!((lab.leases(), records(&project.state())), (Vec::new(), Vec::new()));
    };
    fails("{\"name\":\"n\"", "", 2, &["cni.conflist is invalid: EOF while parsing"]);
    fails("{\"name\":\"n\",\"plugins\":[{}]}", "", 2, &["cni.conflist is invalid: a plugin has no \"type\""]);
    let missing = "{\"name\":\"n\",\"type\":\"no-such-plugin\"}";
    let place = format!("the CNI plugin \"no-such-plugin\" is not in /nonexistent:{}", lab.plugins().display());
    fails(missing, "", 5, &[&place, "apt-get install containernetworking-plugins", "cniBinaryPath", host]);
    let ipam = "{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"type\":\"bridge\",\"bridge\":\"br0\",\"ipam\":{\"type\":\"no-such-ipam\"}}";
    let told =
        "the CNI plugin \"bridge\" failed to set up the network \"n\": failed to find plugin \"no-such-ipam\" in path";
    fails(ipam, "", 5, &[told, "RUN true", host]);
    let version = "{\"cniVersion\":\"0.9.9\",\"name\":\"n\",\"type\":\"bridge\"}";
    fails(version, "", 5, &["the CNI plugin \"bridge\" failed to set up", "incompatible CNI versions", host]);
    lab.plugin("odd", "echo nonsense");
    fails(
        "{\"name\":\"n\",\"type\":\"odd\"}",
        "",
        5,
        &["the CNI plugin \"odd\" gave no valid answer: expected ident", host],
    );
    let absent = format!("cniConfigPath = \"{}\"", lab.path("absent.conf").display());
    fs::write(lab.path("buildkitd.toml"), format!("[worker.oci]\nnetworkMode = \"cni\"\n{absent}\n")).unwrap();
    let _ = lab
        .build(&project, &[])
        .failure(2)
        .says("failed to read the CNI configuration")
        .says("cniConfigPath")
        .says(host);
    lab.config("networkMode = \"bridge\"\nbridgeSubnet = \"10.0.0.0\"");
    let _ = lab.build(&project, &[]).failure(2).says("bridgeSubnet \"10.0.0.0\" is invalid: it has no length");
    fs::remove_file(lab.plugins().join("firewall")).unwrap();
    lab.config("networkMode = \"bridge\"");
    let _ = lab.build(&project, &[]).failure(5).says("the CNI plugin \"firewall\" is not in").says(host);
}

#[test]
fn without_root_the_machines_network_is_not_changed_and_it_is_said_what_to_do() {
    let lab = Lab::new();
    lab.config("networkMode = \"cni\"");
    let project = with_base(User::Rootless, "RUN true\n");
    let config = lab.path("buildkitd.toml");
    let args = [&["--config", text(&config)], &crate::support::build::busybox()[..]].concat();
    let said = "networkMode \"cni\" changes this machine's network, which this user may not";
    let _ = project
        .build(&args)
        .failure(5)
        .says(said)
        .says("run rbuild as root")
        .says("rootlesskit")
        .says("networkMode = \"host\"");
    lab.config("networkMode = \"auto\"");
    let _ = project.build(&args).success();
    // Nor is a configuration at the usual place of a user one to fail on.
    let place = project.home().join(".config/buildkit");
    fs::create_dir_all(&place).unwrap();
    fs::copy(lab.network("", ""), place.join("cni.json")).unwrap();
    project.own(&project.home().join(".config"));
    let _ = project
        .build(&[&["--no-cache", "--debug"], &crate::support::build::busybox()[..]].concat())
        .success()
        .says("steps have the host's");
    assert_eq!(lab.calls(), Vec::<String>::new());
}

#[test]
fn without_root_plugins_work_in_a_network_namespace_of_the_users_own() {
    let lab = Lab::new();
    let project = with_base(User::Rootless, "RUN ip -o addr show eth0 > /seen\n");
    lab.network("", "");
    let leases = project.home().join("leases");
    let path = lab.path("cni.conflist");
    let text = fs::read_to_string(&path).unwrap().replace(super::text(&lab.path("leases")), super::text(&leases));
    fs::write(&path, text).unwrap();
    lab.config("networkMode = \"cni\"");
    fs::write(lab.path("calls"), "").unwrap();
    project.own(&lab.path("calls"));
    let out = project.home().join("out");
    let mut command = project.command("unshare");
    command.args(["--user", "--map-root-user", "--map-auto", "--net"]).arg(crate::support::build::binary());
    command
        .arg("--root")
        .arg(project.state())
        .args(["--progress", "plain", "--config"])
        .arg(lab.path("buildkitd.toml"));
    command.args(crate::support::build::busybox()).arg("-o").arg(format!("type=local,dest={}", out.display()));
    command.arg(project.context());
    let _ = run(command).success();
    let seen = fs::read_to_string(out.join("seen")).unwrap();
    assert!(seen.contains(" 10.99.0.2/24 "), "{seen}");
    assert_eq!(lab.calls(), ["ADD", "DEL"]);
    assert_eq!(records(&project.state()), Vec::<String>::new());
}
