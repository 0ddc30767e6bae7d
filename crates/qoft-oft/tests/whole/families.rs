//! OFT among the registered families.

use qoft_oft::REGISTRATION;
use qoft_peft::Families;

#[test]
fn an_unknown_family_is_refused_with_the_list_of_those_there_are() {
    let families = Families::linked().unwrap();
    assert_eq!(families.find("oft", "x").unwrap().peft_type(), "OFT");
    let error = families.find("VERA", "x").err().unwrap().to_string();
    assert!(
        error.contains("`VERA`") && error.ends_with("registered: OFT"),
        "{error}"
    );
}

#[test]
fn a_family_replaces_one_of_its_name_only_if_it_says_so() {
    let built_in = REGISTRATION;
    let other = built_in.replacing();
    assert!(Families::new([&built_in, &built_in]).is_err());
    assert!(Families::new([&other, &other]).is_err());
    for entries in [[&built_in, &other], [&other, &built_in]] {
        assert_eq!(Families::new(entries).unwrap().families().count(), 1);
    }
    let none = Families::new([]).unwrap();
    assert!(none.find("OFT", "x").is_err());
    let one = none.with(&built_in).unwrap();
    assert!(one.find("OFT", "x").is_ok() && one.with(&built_in).is_err());
    assert!(one.with(&other).is_ok());
}
