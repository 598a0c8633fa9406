//! How much is asked of a registry at once, counted at the server.

use super::Settings;
use crate::support::build::{BOTH, Project, run};
use crate::support::gate::{Gate, Kind};

/// Layers of the image: more than may be asked for at once.
const LAYERS: usize = 14;

#[test]
fn a_registry_is_asked_for_four_blobs_at_once_or_as_many_as_configured() {
    for user in BOTH {
        for (number, expected) in [(None, 4), (Some(1), 1), (Some(2), 2), (Some(10), 10)] {
            let toml =
                number.map(|number| format!("[system]\n  maxRegistryConcurrency = {number}\n")).unwrap_or_default();
            let gate = Gate::start(LAYERS, Kind::Blob, Some(expected));
            let name = format!("{}/lib/base:1", gate.host);
            let project = Project::with(user, &format!("FROM {name}\nCOPY Dockerfile /\n"));
            let out = format!("type=local,dest={}", project.home().join("out").display());
            let _ = Settings::toml(&toml).build(&project, &["-o", &out]).success();
            assert_eq!(gate.most(Kind::Blob), expected, "{toml}");
            assert!(gate.most_in_all() <= expected + 1);
            assert!(project.home().join(format!("out/file-{}", LAYERS - 1)).exists());
        }
    }
}

#[test]
fn numbers_that_make_no_sense_are_refused() {
    let project = Project::with(BOTH[1], "FROM scratch\nCOPY Dockerfile /\n");
    let toml = "[system]\n  maxRegistryConcurrency = 0\n";
    let _ = run(Settings::toml(toml).command(&project, &[])).failure(2).says("buildkitd.toml:2");
}
