//! OFT among the registered families.

use qoft_oft::Oft;
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
    assert!(Families::new([&Oft as _, &Oft as _]).is_err());
}
