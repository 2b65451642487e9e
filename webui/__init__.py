"""
Everything that has a user: browser, REST. Front doors submit requests to the queue and follow events; they run nothing.
"""
