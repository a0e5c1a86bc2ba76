-- Copies of approvals and locks. Their machines decide; a machine writes its own rows and no others.

create table approvals (
    machine_id uuid not null references machines on delete cascade,
    -- The machine chooses it: two machines can never get in each other's way.
    id uuid not null,
    session_id uuid not null,
    state text not null,
    -- Something may still follow: pending, or decided and not applied.
    is_open boolean not null,
    -- When the relay heard of its present version.
    updated_at timestamptz not null,
    version bigint not null,
    -- The link that named it last: what a newer link does not name is gone.
    link_epoch bigint not null,
    -- `Approval` without `machine_id`, as text: jsonb has no U+0000, and what is asked is kept to the last character.
    approval text not null,
    primary key (machine_id, id)
);
create index approvals_open on approvals (machine_id) where is_open;
create index approvals_answered on approvals (machine_id, updated_at) where not is_open;

create table locks (
    machine_id uuid not null references machines on delete cascade,
    id uuid not null,
    version bigint not null,
    link_epoch bigint not null,
    -- `Lock` without `machine_id`.
    lock text not null,
    primary key (machine_id, id)
);
