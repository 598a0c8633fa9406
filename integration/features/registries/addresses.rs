//! Registries of other machines: of an address that is not this machine's loopback, in a network namespace of the test's own.

use std::fs;
use std::process::{Child, Command, Stdio};

use super::{Settings, forget};
use crate::support::build::{BOTH, Project, run};
use crate::support::lab::Lab;

/// An address for documentation, which no machine has.
const ADDRESS: &str = "192.0.2.7";
const HOST: &str = "192.0.2.7:5000";

/// A registry without TLS at [`ADDRESS`].
struct Elsewhere {
    lab: Lab,
    process: Child,
}

impl Elsewhere {
    fn start() -> Self {
        let lab = Lab::new();
        for words in [
            "link add near type veth peer name far",
            &format!("address add {ADDRESS}/24 dev near"),
            "link set near up",
            "link set far up",
        ] {
            let _ = lab.tool("ip", &words.split(' ').collect::<Vec<_>>());
        }
        let config = lab.path("registry.yml");
        let text = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {HOST}\n  secret: fixed\n",
            lab.path("data").display()
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(config);
        let process = lab.around(&command).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let registry = Self { lab, process };
        let ask = format!(
            "for i in $(seq 1500); do : 2>/dev/null </dev/tcp/{ADDRESS}/5000 && exit; sleep 0.02; done; exit 1"
        );
        let _ = registry.lab.tool("bash", &["-c", &ask]);
        registry
    }

    fn build(&self, project: &Project, toml: &str, args: &[&str]) -> crate::support::build::Output {
        run(self.lab.around(&Settings::toml(toml).command(project, args)))
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        // It may have ended by itself already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn plain_http_is_spoken_with_another_machine_where_that_is_said_and_only_there() {
    let registry = Elsewhere::start();
    let said = format!("[registry.\"{HOST}\"]\nhttp = true\n");
    let name = format!("{HOST}/lib/base:1");
    for user in BOTH {
        let base = Project::with(user, "FROM scratch\nCOPY f /f\n");
        base.file("f", format!("of {user:?}"));
        let refused = registry.build(&base, "", &["-t", &name, "--push"]).failure(4);
        let _ = refused.says(HOST).says(&format!("set `http = true` under [registry.\"{HOST}\"]"));
        let _ = registry.build(&base, &said, &["-t", &name, "--push"]).success();
        let project = Project::with(user, &format!("FROM {name}\nCOPY Dockerfile /\n"));
        let out = project.home().join("out");
        let spec = format!("type=local,dest={}", out.display());
        // Another registry's setting is not this one's.
        let other = said.replace(":5000", ":5001");
        let _ = registry.build(&project, &other, &["-o", &spec]).failure(4).says("http = true");
        let _ = registry.build(&project, &said, &["-o", &spec]).success();
        assert_eq!(fs::read_to_string(out.join("f")).unwrap(), format!("of {user:?}"));
        let cache = format!("type=registry,ref={HOST}/lib/cache:1");
        let _ = registry.build(&project, &said, &["--cache-to", &cache]).success();
        forget(&project);
        let again = registry.build(&project, &said, &["--cache-from", &cache, "-o", &spec]).success();
        assert_eq!(again.count(" CACHED\n"), 2, "{}", again.stderr);
    }
}
