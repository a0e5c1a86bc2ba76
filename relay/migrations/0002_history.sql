-- Past output of sessions, for machines with `history = "full"`.
-- Chunks come in the order of their offsets; a run's row says where its copy ends, and moves only together with a chunk.

create table history_runs (
    machine_id uuid not null,
    session_id uuid not null,
    epoch bigint not null,
    -- Offset behind the last byte that came, or is known to be missing. Stays when chunks are pruned.
    end_offset bigint not null,
    stored_bytes bigint not null,
    primary key (machine_id, session_id, epoch),
    -- A session that is forgotten takes its history along.
    foreign key (machine_id, session_id) references sessions on delete cascade
);

-- By day of arrival, so that retention drops whole tables; the relay makes each day's when its first chunk comes.
create table history_chunks (
    day date not null,
    machine_id uuid not null,
    session_id uuid not null,
    epoch bigint not null,
    -- Bytes from here up to `start_offset` are missing.
    from_offset bigint not null,
    start_offset bigint not null,
    end_offset bigint not null,
    received_at timestamptz not null,
    -- Milliseconds since the run began, of the first and the last byte.
    at_ms bigint not null,
    end_ms bigint not null,
    -- When the first byte came, by the machine's clock.
    time timestamptz not null,
    -- `ChunkHead`.
    head jsonb not null,
    -- Output and screen, compressed by the machine; the relay never looks into the former.
    data bytea not null,
    screen bytea,
    -- Lines that people saw, as the machine extracted them, with their offsets and times.
    lines text not null,
    line_offsets bigint[] not null,
    line_ms bigint[] not null,
    stored_bytes bigint not null,
    primary key (day, machine_id, session_id, epoch, start_offset),
    foreign key (machine_id, session_id, epoch) references history_runs on delete cascade
) partition by range (day);
create index history_chunks_place on history_chunks (machine_id, session_id, epoch, start_offset);
-- Compressed once is enough.
alter table history_chunks alter column data set storage external;
alter table history_chunks alter column screen set storage external;
