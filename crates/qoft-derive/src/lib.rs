//! `#[derive(Walk)]`: which fields of a model hold layers.
//!
//! The macro is documented with the trait that it implements, `qoft_core::Walk`, and comes with it.

mod attributes;
mod expand;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input, parse_quote};

/// Implements `Walk` for a struct or enum, as `qoft_core` exports it.
#[proc_macro_derive(Walk, attributes(walk))]
pub fn walk(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand::walk(&input, parse_quote!(::qoft_core)).into()
}

/// As [`macro@Walk`], as the facade `qoft` exports it: for crates that depend on nothing else.
#[proc_macro_derive(FacadeWalk, attributes(walk))]
pub fn facade_walk(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand::walk(&input, parse_quote!(::qoft::core)).into()
}
