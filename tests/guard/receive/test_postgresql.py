"""The same promises on a real PostgreSQL server, away and back again."""

from collections.abc import Callable
from pathlib import Path

from dicom_peers import Raw, body, slice_of
from tests.guard.postgres import server

from titer.guard.audit.verify import verified
from titer.guard.store.tables import audit, objects, series, verdicts


def test_g1_objects_are_stored_refused_and_compared_and_a_server_that_is_away_is_told(start: Callable) -> None:
    one, other, late = slice_of(1), slice_of(1, seed=5), slice_of(2)
    with server() as postgres:
        guard = start(top=f'database = "{postgres.url}"')
        with Raw(guard.port) as peer:
            assert peer.associate() == 2
            assert peer.store(one.SOPInstanceUID, body(one)) == (0, "")
            assert peer.store(one.SOPInstanceUID, body(one)) == (0, "")
            assert peer.store(one.SOPInstanceUID, body(other))[0] == 0xA779
            postgres.stop()
            assert peer.store(late.SOPInstanceUID, body(late)) == (0xA700, "journal does not take it")
            postgres.start()
            assert peer.store(late.SOPInstanceUID, body(late)) == (0, "")
        assert sorted(row.state for row in guard.rows(objects)) == ["quarantined", "received", "received"]
        assert [row.objects for row in guard.rows(series)] == [2]
        assert len(guard.rows(verdicts)) == 1
        assert all(Path(row.path).is_file() for row in guard.rows(objects))
        assert len(guard.rows(audit)) == 4
        assert verified(guard.home)[1] == []
        guard.stop()
