//! The small version of `cargo bench --bench timing`: a gross dependence of time on secrets is seen.
//! The limit is far above what chance gives (4.5 is one in a hundred thousand) and far below what the
//! control shows; other work on the machine hides differences and makes none.
#![expect(clippy::disallowed_methods, reason = "it measures time")]

#[path = "../benches/timing/dudect.rs"]
mod dudect;

#[test]
fn time_tells_nothing_gross_of_secrets() {
    let all = dudect::all(3000).unwrap();
    assert_eq!(all.len(), 4);
    for (name, times) in all {
        let t = dudect::welch(&times).abs();
        if name.starts_with("control") {
            assert!(t > 20.0, "the control should leak: t {t}");
        } else {
            assert!(t < 12.0, "{name}: t {t}");
        }
    }
}
