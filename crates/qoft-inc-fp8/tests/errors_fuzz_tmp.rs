//! Temporary.
use std::time::Duration;
#[test]
fn fuzz() {
    let n = qoft_conformance::Subject::new(&qoft_inc_fp8::REGISTRATION)
        .folders(qoft_fixtures::folders("schemes/inc-fp8"))
        .fuzz(Duration::from_secs(60), 11);
    println!("{n} rounds");
}
