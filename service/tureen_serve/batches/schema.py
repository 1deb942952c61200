"""The tables of files and batches. Times are seconds of the epoch by the database's clock."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

# a digest of the tables for each version; a change of the tables adds a version, and older databases are refused
DIGESTS = {1: "09a685e4fff4fb61", 2: "2aa6e1b1d0ebb9c4"}
VERSION = max(DIGESTS)
# what makes the tables of a version from those of the version before; servers of that version may still write into them
UPGRADES = {
    2: (
        "ALTER TABLE tureen_files ADD COLUMN tenant VARCHAR(64)",
        "ALTER TABLE tureen_batches ADD COLUMN tenant VARCHAR(64)",
    )
}

metadata = MetaData()

# one row: the version of the tables
schema = Table("tureen_schema", metadata, Column("version", Integer, primary_key=True))

files = Table(
    "tureen_files",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("purpose", String(16), nullable=False),
    Column("filename", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("key", Text, nullable=False),
    Column("created_at", Double, nullable=False, index=True),
    Column("expires_at", Double, nullable=False, index=True),
    Column("tenant", String(64)),
)

# ``outcome`` is the status after finalizing; ``fence`` counts leases, and only the last lease may commit
batches = Table(
    "tureen_batches",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("endpoint", String(64), nullable=False),
    Column("window", String(16), nullable=False),
    Column("metadata", JSON),
    Column("input_file_id", String(64), nullable=False),
    Column("output_file_id", String(64)),
    Column("error_file_id", String(64)),
    Column("keep_seconds", Integer),
    Column("status", String(16), nullable=False, index=True),
    Column("outcome", String(16)),
    Column("errors", JSON),
    Column("total", Integer, nullable=False, default=0),
    Column("completed", Integer, nullable=False, default=0),
    Column("failed", Integer, nullable=False, default=0),
    Column("input_tokens", BigInteger, nullable=False, default=0),
    Column("output_tokens", BigInteger, nullable=False, default=0),
    Column("created_at", Double, nullable=False, index=True),
    Column("in_progress_at", Double),
    Column("expires_at", Double, nullable=False),
    Column("finalizing_at", Double),
    Column("cancelling_at", Double),
    Column("ended_at", Double),
    Column("owner", String(64)),
    Column("fence", Integer, nullable=False, default=0),
    Column("leased_until", Double),
    Column("swept", Boolean, nullable=False, default=False),
    Column("tenant", String(64)),
)

# ``state`` is waiting, leased, done or void; ``key`` is where the result of a done chunk is stored
chunks = Table(
    "tureen_chunks",
    metadata,
    Column("batch_id", String(64), ForeignKey(batches.c.id, ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("first_line", Integer, nullable=False),
    Column("lines", Integer, nullable=False),
    Column("start", BigInteger, nullable=False),
    Column("length", BigInteger, nullable=False),
    Column("state", String(8), nullable=False, default="waiting"),
    Column("not_before", Double, nullable=False, default=0.0),
    Column("refusals", Integer, nullable=False, default=0),
    Column("deaths", Integer, nullable=False, default=0),
    Column("owner", String(64)),
    Column("fence", Integer, nullable=False, default=0),
    Column("leased_until", Double),
    Column("key", Text),
    Column("completed", Integer, nullable=False, default=0),
    Column("failed", Integer, nullable=False, default=0),
    Index("tureen_chunks_open", "state", "number"),
)

# the batch that an ``Idempotency-Key`` has created; NULL while its request is being answered
claims = Table(
    "tureen_claims",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("fingerprint", String(64), nullable=False),
    Column("batch_id", String(64)),
    Column("claimed_at", Double, nullable=False, index=True),
)
