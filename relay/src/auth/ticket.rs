//! WebSocket tickets: single use, five minutes, bound to a browser login.

use claudenest_shared::id::UserId;
use claudenest_shared::token::{self, TokenKind};
use uuid::Uuid;

use crate::clock::Clock;
use crate::db::user::User;
use crate::db::{Db, DbError, login};

/// Whom a ticket lets in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TicketHolder {
    /// The user.
    pub user: User,
    /// The browser login that the ticket was issued to; when it ends, the socket ends.
    pub login: Uuid,
}

impl TicketHolder {
    /// The user's id.
    pub fn user_id(&self) -> UserId {
        self.user.id
    }
}

/// Uses up a ticket.
///
/// # Errors
/// When the database is away.
pub async fn redeem(db: &Db, clock: &Clock, ticket: &str) -> Result<Option<TicketHolder>, DbError> {
    if !token::is_well_formed(TokenKind::Ticket, ticket) {
        return Ok(None);
    }
    let found = login::redeem_ticket(db, &token::digest(ticket), clock.now()).await?;
    Ok(found.map(|(user, login)| TicketHolder { user, login }))
}
