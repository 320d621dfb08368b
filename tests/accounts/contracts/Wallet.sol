// SPDX-License-Identifier: Apache-2.0
// Compiled to compiled.json: see the first lines of tests/accounts/chain.py.
pragma solidity ^0.8.30;

/// An account that one key owns (ERC-1271).
contract Wallet {
    address public owner;
    address public next;

    constructor(address owner_, address next_) {
        owner = owner_;
        next = next_;
    }

    /// What anybody may do, and what makes signatures of the next owner good.
    function settle() external {
        owner = next;
    }

    function isValidSignature(bytes32 digest, bytes calldata signature) external view returns (bytes4) {
        if (signature.length != 65) return 0xffffffff;
        address signer = ecrecover(digest, uint8(signature[64]), bytes32(signature[:32]), bytes32(signature[32:64]));
        return signer != address(0) && signer == owner ? this.isValidSignature.selector : bytes4(0xffffffff);
    }
}

/// Deploys wallets to addresses that are known before (ERC-6492).
contract Factory {
    event Made(address wallet);

    function make(address owner, address next) external returns (address) {
        address wallet = address(new Wallet{salt: 0}(owner, next));
        emit Made(wallet);
        return wallet;
    }
}
