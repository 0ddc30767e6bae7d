//! Who hears how files come and go.

/// Hears how it goes.
pub trait Transfer {
    /// A file of so many bytes begins, some of which may be here already.
    fn file(&mut self, name: &str, bytes: u64);
    /// So many more bytes are here.
    fn bytes(&mut self, more: u64);
    /// Something the user should know.
    fn note(&mut self, text: &str);
}

/// Says nothing.
#[derive(Debug, Clone, Copy)]
pub struct Silent;

impl Transfer for Silent {
    fn file(&mut self, _: &str, _: u64) {}
    fn bytes(&mut self, _: u64) {}
    fn note(&mut self, _: &str) {}
}
