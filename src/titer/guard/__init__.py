"""The guard: a gateway that stands between the PACS and the model (DESIGN, section 4).

The database is where its parts meet: `receive` writes objects, `judge` checks them and writes verdicts, `deliver`
empties the outbox, `web` shows and reviews, `operate` keeps it running. Every write goes through one
`store.journal.Journal`, and whatever must be accounted for writes its audit row in the same transaction.
"""
