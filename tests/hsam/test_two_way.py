"""The transformers, written out step by step from SAM's parts."""

import torch

from hsam import sam
from hsam.two_way import CrossFirstTransformer, MaskedAttention, MaskedTransformer
from tests.hsam.seeded import seeded

IMAGE = seeded("image", (2, 16, 3, 3)) * 12
POSITION = seeded("position", (1, 16, 3, 3)) * 12
TOKENS = seeded("tokens", (2, 4, 16)) * 8
MASK = torch.softmax(seeded("mask", (2, 4, 9)), dim=1)


def fill(module):
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(seeded(name, tuple(parameter.shape)))
    return module.eval()


def by_hand(block, tokens, image, token_pe, position, first):
    out = block.cross_attn_token_to_image(q=tokens + token_pe, k=image + position, v=image)
    tokens = block.norm2(tokens + out)
    if first:
        tokens = block.self_attn(q=tokens, k=tokens, v=tokens)
    else:
        q = tokens + token_pe
        tokens = tokens + block.self_attn(q=q, k=q, v=tokens)
    tokens = block.norm1(tokens)
    tokens = block.norm3(tokens + block.mlp(tokens))
    out = block.cross_attn_image_to_token(q=image + position, k=tokens + token_pe, v=tokens)
    return tokens, block.norm4(image + out)


def test_cross_attention_comes_first():
    transformer = fill(CrossFirstTransformer(16, 2, 32))
    found = transformer(IMAGE, POSITION, TOKENS)
    image, position = (x.flatten(2).transpose(1, 2) for x in (IMAGE, POSITION))
    tokens = TOKENS
    for index, block in enumerate(transformer.layers):
        tokens, image = by_hand(block, tokens, image, TOKENS, position, index == 0)
    out = transformer.final_attn_token_to_image(q=tokens + TOKENS, k=image + position, v=image)
    torch.testing.assert_close(found[0], transformer.norm_final_attn(tokens + out))
    torch.testing.assert_close(found[1], image)


def test_order_differs_from_sams():
    ours, theirs = fill(CrossFirstTransformer(16, 2, 32)), sam.TwoWayTransformer(2, 16, 2, 32)
    theirs.load_state_dict(ours.state_dict())
    difference = ours(IMAGE, POSITION, TOKENS)[0] - theirs(IMAGE, POSITION, TOKENS)[0]
    assert difference.abs().max() > 0.01


def test_mask_multiplies_softmaxed_weights():
    attention = fill(MaskedAttention(16, 2))
    image = IMAGE.flatten(2).transpose(1, 2)
    q, k, v = attention.q_proj(TOKENS), attention.k_proj(image), attention.v_proj(image)
    heads = []
    for part in (slice(0, 8), slice(8, 16)):
        score = q[..., part] @ k[..., part].transpose(1, 2) / 8**0.5
        heads.append((score.softmax(-1) * MASK) @ v[..., part])
    expected = attention.out_proj(torch.cat(heads, dim=-1))
    torch.testing.assert_close(attention(TOKENS, image, image, MASK), expected)


def test_mask_of_ones_is_plain_attention():
    transformer = fill(MaskedTransformer(16, 2, 32))
    plain = transformer(IMAGE, POSITION, TOKENS)
    masked = transformer(IMAGE, POSITION, TOKENS, torch.ones(2, 4, 9))
    torch.testing.assert_close(masked, plain)


def test_mask_reaches_both_directions():
    transformer = fill(MaskedTransformer(16, 2, 32, depth=1))
    block = transformer.layers[0]
    image, position = (x.flatten(2).transpose(1, 2) for x in (IMAGE, POSITION))
    q, k = TOKENS + TOKENS, image + position
    tokens = block.norm2(TOKENS + block.cross_attn_token_to_image(q, k, image, MASK))
    tokens = block.norm1(block.self_attn(q=tokens, k=tokens, v=tokens))
    tokens = block.norm3(tokens + block.mlp(tokens))
    back = block.cross_attn_image_to_token(k, tokens + TOKENS, tokens, MASK.transpose(1, 2))
    expected = block.norm4(image + back)
    torch.testing.assert_close(transformer(IMAGE, POSITION, TOKENS, MASK)[1], expected)


def test_dropout_is_of_training_alone():
    transformer = fill(MaskedTransformer(16, 2, 32))
    steady = [transformer(IMAGE, POSITION, TOKENS)[0] for _ in range(2)]
    assert torch.equal(*steady)
    transformer.train()
    noisy = [transformer(IMAGE, POSITION, TOKENS)[0] for _ in range(2)]
    assert not torch.equal(*noisy)


def test_dropout_follows_the_generator():
    transformer = fill(MaskedTransformer(16, 2, 32)).train()

    def run(seed):
        generator = torch.Generator().manual_seed(seed)
        return transformer(IMAGE, POSITION, TOKENS, MASK, generator)[0]

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))
