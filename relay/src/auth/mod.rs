//! Who is asking: browser logins, tickets, tokens.

pub mod ticket;
