//! Temporary.
use std::time::Duration;
#[test]
fn fuzz() {
    let n = qoft_conformance::Subject::new(&qoft_eetq::REGISTRATION)
        .folders(qoft_fixtures::folders("schemes/eetq"))
        .fuzz(Duration::from_secs(60), 11);
    println!("{n} rounds");
}
