"""
Torch modules that the project owns: GPEN, and the graph wrappers that give a model its signature. Never on the edge
path.
"""
