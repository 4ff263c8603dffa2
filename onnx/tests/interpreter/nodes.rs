//! The smallest needed node tests of the `onnx` package, version 1.23.2, kept in the repository
//! (`cargo xtask onnx-nodes` runs all of them). `../python/export_node_tests.py FILE 500` made the
//! fixture.

use crate::cases::{self, Verdict};

#[test]
fn the_small_node_tests_pass() {
    let cases = cases::read(include_bytes!("../fixtures/nodes.bin")).unwrap();
    assert_eq!(cases.len(), 502);
    let mut refused = Vec::new();
    for case in &cases {
        assert_eq!(case.group, "needed");
        match case.judge().unwrap() {
            Verdict::Passed => {}
            Verdict::Refused(error) => refused.push(format!("{}: {error}", case.name)),
            Verdict::Wrong(why) => panic!("{}: {why}", case.name),
        }
    }
    assert_eq!(refused, [""; 0]);
}
