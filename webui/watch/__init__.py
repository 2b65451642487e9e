"""
The watch folder: what is put into an inbox is restored, and laid into an outbox under the same name, in the same tree.

`scan` lists the inbox and knows what has settled; `ledger` remembers what became of which bytes; `intake` copies a
photo in and submits it; `outbox` lays results down, `stacking` takes them to immich; `report` and `contact_sheet` say
what became of them; `watcher` does it all in turn. `python -m webui.watch` watches where no server runs.
"""
