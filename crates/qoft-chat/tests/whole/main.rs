//! What `qoft-chat` does as a whole, in one program that is linked once.

mod chat;
mod limits;
mod mutations;
mod published;
