//! The protocol between daemon and holder.
