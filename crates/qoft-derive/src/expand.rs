//! The code that the macro writes.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{
    Data, DataEnum, DeriveInput, Error, Fields, FieldsNamed, Generics, Ident, Path, Result, Type,
    parse_quote,
};

use crate::attributes::{OfField, OfType};

/// The implementation for `input`, or an error at the place that is wrong; `core` is the path of the
/// crate with the trait, unless the type names another.
pub fn walk(input: &DeriveInput, core: Path) -> TokenStream {
    implementation(input, core).unwrap_or_else(Error::into_compile_error)
}

fn implementation(input: &DeriveInput, core: Path) -> Result<TokenStream> {
    let attributes = OfType::read(&input.attrs)?;
    let core = attributes.core.unwrap_or(core);
    let visit = |walk: Ident| match &input.data {
        _ if attributes.layer => Ok(quote!(visit(path, self);)),
        Data::Struct(data) => match &data.fields {
            Fields::Named(fields) => named(fields, &walk, &core),
            Fields::Unnamed(fields) if fields.unnamed.len() == 1 => {
                let inner = &fields.unnamed[0];
                let reference = reference(&walk);
                Ok(call(
                    &inner.ty,
                    &walk,
                    &core,
                    quote!(#reference self.0),
                    quote!(path),
                ))
            }
            _ => Err(Error::new_spanned(
                &input.ident,
                "fields need names, or one field and none",
            )),
        },
        Data::Enum(data) => variants(data, &walk, &core),
        Data::Union(_) => Err(Error::new_spanned(&input.ident, "a union has no layers")),
    };
    let (shared, exclusive) = (
        visit(format_ident!("walk"))?,
        visit(format_ident!("walk_mut"))?,
    );
    let name = &input.ident;
    let generics = bounded(&input.generics, &core);
    let (parameters, arguments, bounds) = generics.split_for_impl();
    Ok(quote! {
        #[automatically_derived]
        impl #parameters #core::Walk for #name #arguments #bounds {
            fn walk<'walk>(
                &'walk self,
                path: &str,
                visit: &mut dyn FnMut(&str, &'walk dyn #core::Layer),
            ) {
                let _ = (path, &visit);
                #shared
            }

            fn walk_mut(
                &mut self,
                path: &str,
                visit: &mut dyn FnMut(&str, &mut dyn #core::Layer),
            ) {
                let _ = (path, &visit);
                #exclusive
            }
        }
    })
}

/// Calls for the fields of a struct, each below its name.
fn named(fields: &FieldsNamed, walk: &Ident, core: &Path) -> Result<TokenStream> {
    let mut calls = TokenStream::new();
    for field in &fields.named {
        let attributes = OfField::read(&field.attrs)?;
        if attributes.skip {
            continue;
        }
        let ident = field.ident.as_ref().expect("a named field");
        let name = attributes
            .name
            .unwrap_or_else(|| ident.to_string().replace("r#", ""));
        let reference = reference(walk);
        let value = quote!(#reference self.#ident);
        let path = quote!(&#core::walk::join(path, #name));
        calls.extend(call(&field.ty, walk, core, value, path));
    }
    Ok(calls)
}

/// The call for what the variant at hand holds, at the path of the enum itself.
fn variants(data: &DataEnum, walk: &Ident, core: &Path) -> Result<TokenStream> {
    let mut arms = TokenStream::new();
    for variant in &data.variants {
        let name = &variant.ident;
        arms.extend(match &variant.fields {
            Fields::Unit => quote!(Self::#name => {}),
            Fields::Unnamed(fields) if fields.unnamed.len() == 1 => {
                let call = call(
                    &fields.unnamed[0].ty,
                    walk,
                    core,
                    quote!(inner),
                    quote!(path),
                );
                quote!(Self::#name(inner) => { #call })
            }
            _ => {
                let reason = "a variant has one field without a name, or none";
                return Err(Error::new_spanned(variant, reason));
            }
        });
    }
    Ok(quote!(match self { #arms }))
}

fn reference(walk: &Ident) -> TokenStream {
    match walk == "walk" {
        true => quote!(&),
        false => quote!(&mut),
    }
}

/// Walks `value`; an error about its type points to the field.
fn call(
    ty: &Type,
    walk: &Ident,
    core: &Path,
    value: TokenStream,
    path: TokenStream,
) -> TokenStream {
    quote_spanned!(ty.span() => #core::Walk::#walk(#value, #path, visit);)
}

/// The generics of the type, whose parameters can be walked.
fn bounded(generics: &Generics, core: &Path) -> Generics {
    let mut generics = generics.clone();
    for parameter in generics.type_params_mut() {
        parameter.bounds.push(parse_quote!(#core::Walk));
    }
    generics
}
