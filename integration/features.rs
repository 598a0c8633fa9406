//! What the flags and instructions promise, build by build.

use crate::support::build::{BASE, BOTH, Project, busybox};

#[test]
fn second_build_is_cached_and_a_changed_file_reruns_what_depends_on_it() {
    for user in BOTH {
        let dockerfile = format!("{BASE}COPY a /a\nRUN cat /a > /ca\nFROM base\nCOPY b /b\nRUN cat /b > /cb\n");
        let project = Project::with(user, &dockerfile);
        project.file("a", "one").file("b", "two");
        let _ = project.build(&busybox()).success().silent_about("CACHED");
        let again = project.build(&busybox()).success();
        assert_eq!(again.count("CACHED"), 6, "{}", again.stderr);
        // A new time is no change; new content is, and only of what reads it.
        project.file("b", "two");
        assert_eq!(project.build(&busybox()).success().count("CACHED"), 6);
        project.file("b", "three");
        let changed = project.build(&busybox()).success();
        assert_eq!(changed.count("CACHED"), 4, "{}", changed.stderr);
    }
}
