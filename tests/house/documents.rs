//! What the documents say of the program is what the program says of itself.

use std::process::Command;

fn document(name: &str) -> String {
    std::fs::read_to_string(ringfence_testkit::root().join("docs").join(name)).unwrap()
}

#[test]
fn the_permission_matrix_is_the_one_in_force() {
    let printed = Command::new(env!("CARGO_BIN_EXE_ringfence")).arg("permissions").output().unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    let document = document("access.md");
    let shown = document.split("<!-- matrix -->").nth(1).unwrap().split("<!-- /matrix -->").next().unwrap();
    assert_eq!(shown.trim(), printed.trim(), "put what `ringfence permissions` prints into docs/access.md");
}

#[test]
fn every_option_of_a_host_is_in_the_operations_manual() {
    let help = Command::new(env!("CARGO_BIN_EXE_ringfence")).args(["serve", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let document = document("operations.md");
    let options = help.lines().filter_map(|line| line.trim_start().strip_prefix("--"));
    let options = options.map(|option| option.split([' ', '[', '=']).next().unwrap());
    let missing: Vec<_> =
        options.filter(|option| *option != "help" && !document.contains(&format!("`--{option}`"))).collect();
    assert!(
        help.contains("--reads-per-minute") && missing.is_empty(),
        "not in docs/operations.md: {missing:?}"
    );
}
