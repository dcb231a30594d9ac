"""The contract of a store's configuration: rows under names, one version, and who watches it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Thread

import pytest

from flask_aibridge.services.storage import Store
from tests.services.contract_records import DEADLINE, ODD_NAMES, TRICKY_TEXTS, soon
from tests.services.servers import wait_until

WATCHED = ("providers", "mcp")


class ConfigContract:
    """Tests over the fixture ``store``."""

    def test_there_is_nothing_at_first(self, store: Store) -> None:
        """Version 0 and no rows."""
        assert store.config_version() == 0
        for table in (*WATCHED, "mcp-tokens:alice"):
            assert store.config_rows(table) == (0, {})

    @pytest.mark.parametrize("table", WATCHED)
    def test_each_change_counts_the_version_up(self, store: Store, table: str) -> None:
        """Putting, replacing and deleting; deleting what is not there changes nothing."""
        first = store.put_config_row(table, "a", "one")
        second = store.put_config_row(table, "a", "two")
        third = store.put_config_row(table, "b", "three")
        assert 0 < first < second < third == store.config_version()
        assert store.config_rows(table) == (third, {"a": "two", "b": "three"})
        fourth = store.delete_config_row(table, "a")
        assert fourth is not None
        assert fourth > third
        assert store.config_rows(table) == (fourth, {"b": "three"})
        assert store.delete_config_row(table, "a") is None
        assert store.config_version() == fourth

    def test_tables_do_not_share_names(self, store: Store) -> None:
        """Nor do the tokens of users, whatever they are called."""
        tables = [*WATCHED, *(f"mcp-tokens:{name}" for name in ODD_NAMES), "mcp-tokens:"]
        for table in tables:
            store.put_config_row(table, "name", f"text of {table}")
        for table in tables:
            assert store.config_rows(table)[1] == {"name": f"text of {table}"}
        store.delete_config_row(tables[-1], "name")
        assert store.config_rows(tables[-1])[1] == {}
        assert store.config_rows(tables[-2])[1] == {"name": f"text of {tables[-2]}"}

    def test_rows_hold_any_text_under_any_name(self, store: Store) -> None:
        """Names and texts come back as they were put."""
        rows = {name: name * 2 for name in ODD_NAMES} | {f"text {text}": text for text in TRICKY_TEXTS}
        for name, text in rows.items():
            store.put_config_row("mcp", name, text)
        assert store.config_rows("mcp")[1] == rows

    def test_an_unknown_table_is_refused(self, store: Store) -> None:
        """There are three kinds of tables."""
        for table in ("", "other", "version", "mcp-tokens"):
            with pytest.raises(ValueError):
                store.put_config_row(table, "a", "b")
            with pytest.raises(ValueError):
                store.config_rows(table)

    def test_a_table_is_seeded_once(self, store: Store) -> None:
        """After that the store wins: what was deleted or changed since does not come back."""
        assert store.seed_config("providers", {"a": "1", "b": "2"}, "digest one") is None
        version, rows = store.config_rows("providers")
        assert rows == {"a": "1", "b": "2"}
        assert version > 0
        store.put_config_row("providers", "a", "changed")
        store.delete_config_row("providers", "b")
        version = store.config_version()
        assert store.seed_config("providers", {"a": "1", "b": "2", "c": "3"}, "digest two") == "digest one"
        assert store.config_rows("providers") == (version, {"a": "changed"})

    def test_seeding_with_nothing_is_seeding(self, store: Store) -> None:
        """A host without providers in its config is not seeded by the next that has some."""
        assert store.seed_config("providers", {}, "nothing") is None
        assert store.seed_config("providers", {"a": "1"}, "something") == "nothing"
        assert store.config_rows("providers")[1] == {}

    def test_a_row_that_was_there_before_is_not_overwritten(self, store: Store) -> None:
        """Whoever stored it meant it."""
        store.put_config_row("providers", "a", "stored")
        store.seed_config("providers", {"a": "seed", "b": "seed"}, "digest")
        assert store.config_rows("providers")[1] == {"a": "stored", "b": "seed"}

    def test_of_many_that_seed_at_once_one_does(self, store: Store) -> None:
        """The others are told what from."""
        together = Barrier(8)

        def seed(number: int) -> str | None:
            together.wait(DEADLINE)
            return store.seed_config("providers", {f"row {number}": "text"}, f"digest {number}")

        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(seed, range(8)))
        (winner,) = [number for number, answer in enumerate(answers) if answer is None]
        assert {answer for answer in answers if answer is not None} == {f"digest {winner}"}
        assert store.config_rows("providers")[1] == {f"row {winner}": "text"}

    def test_of_many_changes_at_once_none_is_lost(self, store: Store) -> None:
        """Each has a version of its own."""
        with ThreadPoolExecutor(8) as threads:
            versions = list(threads.map(lambda n: store.put_config_row("mcp", f"row {n}", str(n)), range(40)))
        assert len(set(versions)) == 40
        version, rows = store.config_rows("mcp")
        assert (version, len(rows)) == (max(versions), 40)

    def test_a_watch_tells_the_version_and_each_change(self, store: Store) -> None:
        """One on subscribing, whatever it is; then the latest after each change."""
        version = store.put_config_row("providers", "a", "1")
        with store.watch_config() as versions:
            assert soon(lambda: next(versions)) == version
            for table in WATCHED:
                version = store.put_config_row(table, "a", "2")
                assert _told(versions, version) == version
            seeded = store.seed_config("providers", {"b": "3"}, "digest")
            assert seeded is None
            assert _told(versions, store.config_version()) == store.config_version()

    def test_a_watch_of_an_untouched_store_begins_with_0(self, store: Store) -> None:
        """There is a version before the first change."""
        with store.watch_config() as versions:
            assert soon(lambda: next(versions)) == 0

    def test_every_watch_is_told(self, store: Store) -> None:
        """One that comes later does not take it from the others."""
        with store.watch_config() as one, store.watch_config() as other:
            assert (soon(lambda: next(one)), soon(lambda: next(other))) == (0, 0)
            version = store.put_config_row("mcp", "a", "1")
            assert (_told(one, version), _told(other, version)) == (version, version)

    def test_leaving_the_context_ends_the_watch(self, store: Store) -> None:
        """Whoever waits for the next version stops waiting."""
        told: list[int] = []
        with store.watch_config() as versions:
            reader = Thread(target=lambda: told.extend(versions), daemon=True)
            reader.start()
            wait_until(lambda: told == [0], "the first version", DEADLINE)
        reader.join(DEADLINE)
        assert not reader.is_alive()
        assert told == [0]

    def test_a_closed_store_can_be_used_again(self, store: Store) -> None:
        """With what was in it."""
        store.put_config_row("mcp", "a", "1")
        store.close()
        store.ping()
        assert store.config_rows("mcp")[1] == {"a": "1"}
        store.close()
        store.close()


def _told(versions: Iterator[int], version: int) -> int:
    """The version of a watch, once it has come to this one; a watch may tell of several changes at once."""
    told = soon(lambda: next(versions))
    while told < version:
        told = soon(lambda: next(versions))
    return told
